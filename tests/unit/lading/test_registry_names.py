"""References, with what they leave out filled in."""

from __future__ import annotations

import pytest

import lading
from lading._registry.names import CollectionName, collection_name, portfolio_name, version_name

DIGEST = "b3:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("digits", "acme/vision/digits:latest"),
        ("digits:best", "acme/vision/digits:best"),
        ("digits:v3", "acme/vision/digits:v3"),
        (f"digits@{DIGEST}", f"acme/vision/digits@{DIGEST}"),
        ("other/digits", "acme/other/digits:latest"),
        ("their/other/digits:v0", "their/other/digits:v0"),
        ("lading://their/other/digits:v0", "their/other/digits:v0"),
        ("model-registry/Digit Reader:staging", "acme/model-registry/Digit Reader:staging"),
    ],
)
def test_what_is_left_out_is_the_clients(text: str, whole: str) -> None:
    assert str(version_name(text, "acme", "vision")) == whole


def test_a_client_of_the_registered_models_may_leave_their_project_out() -> None:
    assert version_name("Digit Reader:staging", "acme", "model-registry").collection == "Digit Reader"
    assert collection_name("Digit Reader", "acme", "model-registry").name == "Digit Reader"


@pytest.mark.parametrize("text", ["", ":best", "a b", "a/b/c/d", "a:v1:v2", "a@sha256:0", "Acme/vision/digits", "a//b"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(lading.InvalidArgument):
        version_name(text, "acme", "vision")


def test_a_collection_is_named_alike() -> None:
    assert collection_name("digits", "acme", "vision") == CollectionName("acme", "vision", "digits")
    assert collection_name("a/b/c", "acme", "vision") == CollectionName("a", "b", "c")
    for text in ("digits:best", "a/b/c/d", "", "/x"):
        with pytest.raises(lading.InvalidArgument):
            collection_name(text, "acme", "vision")


def test_a_target_is_a_registered_model() -> None:
    expected = CollectionName("acme", "model-registry", "Digit Reader")
    assert portfolio_name("Digit Reader", "acme") == expected
    assert portfolio_name("model-registry/Digit Reader", "acme") == expected
    assert portfolio_name("acme/model-registry/Digit Reader", "") == expected
    with pytest.raises(lading.InvalidArgument, match="model-registry/reader"):
        portfolio_name("vision/reader", "acme")
