"""`--json`: documents that any parser of JSON reads, with the fields of the SDK's values."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

import lading
from lading._cli.documents import document
from tests.unit.lading.cli import values


def test_a_version_has_its_reference_and_every_public_field() -> None:
    told = document(values.version(metadata={"accuracy": 0.93, "nested": {"a": [1, None, True]}}, aliases=("best",)))
    expected = {"reference"} | {field.name for field in fields(lading.Version)} - {"connection"}
    assert told.keys() == expected
    assert told["reference"] == "acme/vision/digits:v0"
    assert told["created_at"] == "2026-01-31T12:00:00.000Z"
    assert told["aliases"] == ["best"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_values_inside_values_are_documents_too() -> None:
    made = values.version()
    edge = lading.LineageEdge(lading.LineageEdgeKind.LOGGED, made.uid, "r1")
    told = document(lading.Lineage(made.uid, (made,), (values.run("r1"),), (edge,), False))
    assert told["versions"] == [document(made)]
    assert told["edges"] == [{"kind": "logged", "version_uid": made.uid, "run_id": "r1", "link_uid": ""}]
    assert document(values.run("r1", ended_at=None))["ended_at"] is None


@pytest.mark.parametrize(("value", "told"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_a_number_that_json_lacks_is_text(value: float, told: str) -> None:
    assert document(values.run("r1", summary={"loss": value}))["summary"] == {"loss": told}


def test_what_is_no_value_of_the_sdk_is_refused() -> None:
    with pytest.raises(TypeError, match="complex has no document"):
        document(1j)
