"""The tables between MaintenanceService's messages and the SDK's values are total, and lose nothing."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

import lading
from lading._maintenance import convert
from lading_proto.ingest.v1 import maintenance_pb2

MOMENT = datetime.fromtimestamp(1_700_000_000, UTC)
# Names that the SDK has others for.
RENAMED = {
    "name": "entity",
    "tree_digest": "digest",
    "tree_digests": "trees",
    "blob_digests": "blobs",
    "version_uids": "versions",
}


def filled(kind: Any) -> Any:
    """A message whose every field is set, each number to another value."""
    message = kind()
    for number, field in enumerate(message.DESCRIPTOR.fields, start=1):
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp":
            getattr(message, field.name).CopyFrom(Timestamp(seconds=1_700_000_000))
        elif field.message_type is not None:
            part = filled(getattr(maintenance_pb2, field.message_type.name))
            is_list = hasattr(getattr(message, field.name), "append")
            (getattr(message, field.name).append if is_list else getattr(message, field.name).CopyFrom)(part)
        else:
            value = {
                FieldDescriptor.TYPE_STRING: f"text {number}",
                FieldDescriptor.TYPE_BYTES: bytes([number]) * 16,
                FieldDescriptor.TYPE_BOOL: True,
                FieldDescriptor.TYPE_ENUM: 1,
            }.get(field.type, number * 100)
            if hasattr(getattr(message, field.name), "append"):
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


@pytest.mark.parametrize(
    ("enum", "table", "values"),
    [
        (maintenance_pb2.CollectionStep, convert.STEPS, lading.GarbageStep),
        (maintenance_pb2.CollectionOutcome, convert.OUTCOMES, lading.GarbageOutcome),
    ],
)
def test_every_value_of_every_enum_has_its_own(enum: Any, table: dict[int, Any], values: Any) -> None:
    assert table.keys() == set(enum.values()) - {0}
    assert set(table.values()) == set(values)


def check(value: Any, message: Any) -> None:
    """Every field of the message is in the value, and nothing in it is empty."""
    told = {RENAMED.get(field.name, field.name) for field in message.DESCRIPTOR.fields}
    assert {field.name for field in fields(value)} - {"digest", "entity"} == told - {"digest", "entity"}
    for field in fields(value):
        assert getattr(value, field.name) or field.name == "reference", field.name


def test_everything_of_an_entity_arrives() -> None:
    message = filled(maintenance_pb2.EntityCollection)
    one = convert.entity_collection(message)
    check(one, message)
    assert one.reconciled is not None
    assert one.report is not None
    check(one.reconciled, message.reconciled)
    check(one.report, message.report)
    check(one.reconciled.lost[0], message.reconciled.lost[0])
    check(one.report.examples[0], message.report.examples[0])
    assert one.reconciled.unknown_uids == (message.reconciled.unknown_uids[0].hex(),)
    numbers = [getattr(message.report, field.name) for field in message.report.DESCRIPTOR.fields][:12]
    assert [getattr(one.report, field.name) for field in fields(one.report)][:12] == numbers


def test_what_was_refused_has_no_report() -> None:
    one = convert.entity_collection(maintenance_pb2.EntityCollection(name="acme", refused="why"))
    assert one == lading.EntityCollection("acme", "why", None, None)


def test_progress_arrives() -> None:
    progress = maintenance_pb2.CollectionProgress(name="acme", step=maintenance_pb2.COLLECTION_STEP_COLLECT)
    event = convert.event(maintenance_pb2.CollectGarbageResponse(progress=progress))
    assert event == lading.GarbageProgress("acme", lading.GarbageStep.COLLECT)


def test_an_event_of_a_newer_server_is_told() -> None:
    with pytest.raises(lading.Incompatible):
        convert.event(maintenance_pb2.CollectGarbageResponse())


def test_the_last_run_arrives() -> None:
    message = filled(maintenance_pb2.GetLastCollectionResponse)
    last = convert.last_collection(message)
    check(last, message)
    assert (last.outcome, last.began_at, last.ended_at) == (lading.GarbageOutcome.DONE, MOMENT, MOMENT)
    never = convert.last_collection(maintenance_pb2.GetLastCollectionResponse())
    assert (never.outcome, never.began_at, never.ended_at) == (None, None, None)


def test_an_explanation_arrives_with_the_names_that_are_known() -> None:
    message = filled(maintenance_pb2.ExplainContentResponse)
    known, other = message.version_uids[0], b"x" * 16
    message.version_uids.append(other)
    found = convert.explanation(message, "b3:00", {known: "acme/vision/digits:v3"})
    check(found, message)
    assert found.digest == "b3:00"
    assert found.versions == (
        lading.KeepingVersion(known.hex(), "acme/vision/digits:v3"),
        lading.KeepingVersion(other.hex(), ""),
    )
    assert found.goes_at == MOMENT
    check(found.states[0], message.states[0])
    check(found.packs[0], message.packs[0])
    message.ClearField("goes_at")
    assert convert.explanation(message, "b3:00", {}).goes_at is None
