"""Retention between messages and values: nothing is lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import lading
from lading._registry import convert_retention
from lading._registry.names import rule_place
from lading_proto.registry.v1 import retention_pb2

PARTS: dict[str, Any] = {
    "keep_last": 5,
    "keep_best": 3,
    "best_by": "metadata.loss",
    "best_order": "min",
    "keep_days": 30,
    "keep_tags": ("release",),
    "keep_all": False,
    "default_ttl": timedelta(days=2),
}
NONE: dict[str, Any] = {
    **dict.fromkeys(("keep_last", "keep_best", "keep_days"), 0),
    "best_by": "",
    "best_order": "max",
    "keep_tags": (),
    "keep_all": False,
    "default_ttl": None,
}


def test_every_order_has_its_word() -> None:
    assert convert_retention.ORDERS.keys() == set(retention_pb2.BestOrder.values()) - {0}
    assert set(convert_retention.ORDERS.values()) == set(lading.BestOrder)


def test_a_rule_there_and_back() -> None:
    message = convert_retention.rule_to_proto("vision", "digits", **PARTS)
    message.set_at.CopyFrom(Timestamp(seconds=1_700_000_000))
    message.set_by = "ann"
    assert {field.name for field, _ in message.ListFields()} == {
        field.name for field in message.DESCRIPTOR.fields if field.name != "keep_all"
    }
    assert convert_retention.rule(message) == lading.RetentionRule(
        project="vision",
        collection="digits",
        keep_last=5,
        keep_best=3,
        best_by="metadata.loss",
        best_order=lading.BestOrder.MIN,
        keep_days=30,
        keep_tags=("release",),
        keep_all=False,
        default_ttl_seconds=172_800,
        set_at=datetime.fromtimestamp(1_700_000_000, UTC),
        set_by="ann",
    )


def test_a_rule_without_a_best_has_no_order() -> None:
    message = convert_retention.rule_to_proto("vision", "", **{**NONE, "keep_all": True})
    assert {field.name for field, _ in message.ListFields()} == {"project", "keep_all"}
    assert convert_retention.rule(message).set_at is None


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"keep_last": -1}, "keep_last is -1"),
        ({"keep_best": 1 << 32}, "keep_best is"),
        ({"best_order": "up"}, "one of max, min"),
        ({"keep_tags": "release"}, "keep_tags is a sequence"),
        ({"default_ttl": timedelta(seconds=-1)}, "is over already"),
    ],
)
def test_what_the_protocol_cannot_say_is_refused(part: dict[str, Any], said: str) -> None:
    with pytest.raises(lading.InvalidArgument, match=said):
        convert_retention.rule_to_proto("vision", "digits", **{**PARTS, **part})


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (None, None),
        (timedelta(0), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(seconds=1.5), 2),
        (timedelta(days=1), 86_400),
    ],
)
def test_a_time_to_live_is_never_rounded_to_for_ever(ttl: timedelta | None, seconds: int | None) -> None:
    assert convert_retention.ttl_seconds(ttl) == seconds


def test_every_field_of_a_verdict_arrives() -> None:
    message = retention_pb2.RetentionVerdict(
        uid="0" * 32, project="vision", collection="digits", number=7, size_bytes=11, goes=True, why="old"
    )
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    verdict = convert_retention.verdict(message, "acme")
    assert verdict == lading.RetentionVerdict("acme", "vision", "digits", 7, "0" * 32, 11, True, "old")
    assert verdict.reference == "acme/vision/digits:v7"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("digits", ("acme", "default", "digits")),
        ("vision/digits", ("acme", "vision", "digits")),
        ("lading://umbrella/vision/digits", ("umbrella", "vision", "digits")),
        ("*", ("acme", "default", "")),
        ("vision/*", ("acme", "vision", "")),
        ("umbrella/vision/*", ("umbrella", "vision", "")),
    ],
)
def test_a_rule_is_for_a_collection_or_for_a_project(text: str, place: tuple[str, str, str]) -> None:
    found = rule_place(text, "acme", "default")
    assert (found.entity, found.project, found.name) == place


@pytest.mark.parametrize("text", ["a/b/c/*", "vision/di*", "/*", ""])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(lading.InvalidArgument):
        rule_place(text, "acme", "default")
