"""The tables between the registry's messages and the SDK's values are total, and lose nothing."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import lading
from lading._config import wishes_from
from lading._registry import convert
from lading._registry.connection import Connection
from lading._retry import RetryPolicy
from lading_proto.registry.v1 import collections_pb2, events_pb2, lineage_pb2, runs_pb2, versions_pb2

CONNECTION = Connection(wishes_from(None, None, None, None, {}), RetryPolicy(), None)
TIME = Timestamp(seconds=1_700_000_000, nanos=123_000_000)
MOMENT = datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)


@pytest.mark.parametrize(
    ("enum", "table", "values"),
    [
        (collections_pb2.CollectionKind, convert.COLLECTION_KINDS, lading.CollectionKind),
        (runs_pb2.RunState, convert.RUN_STATES, lading.RunState),
        (versions_pb2.DeleteOutcome, convert.DELETE_OUTCOMES, lading.DeleteOutcome),
        (lineage_pb2.LineageEdgeKind, convert.EDGE_KINDS, lading.LineageEdgeKind),
    ],
)
def test_every_value_of_every_enum_has_its_own(enum: Any, table: dict[int, Any], values: Any) -> None:
    assert table.keys() == set(enum.values()) - {0}
    assert set(table.values()) == set(values)


def test_every_direction_has_its_word() -> None:
    assert set(convert.DIRECTIONS.values()) == set(lineage_pb2.LineageDirection.values())
    with pytest.raises(lading.InvalidArgument, match="upstream"):
        convert.direction("up")


def test_every_field_of_a_version_arrives() -> None:
    message = versions_pb2.Version(
        uid="0" * 32,
        project="vision",
        collection="digits",
        is_link=True,
        number=7,
        type="dataset",
        tree_digest="b3:" + "0" * 64,
        file_count=3,
        reference_count=2,
        size_bytes=11,
        description="# Card",
        metadata_json='{"accuracy":0.9}',
        tags=["a", "b"],
        aliases=["best", "latest"],
        created_at=TIME,
        created_by="admin",
        run_id="run",
        source="other/digits:v2",
        source_uid="1" * 32,
        expires_at=TIME,
        deleted_at=TIME,
        purge_at=TIME,
    )
    assert _unset(message) == set()
    version = convert.version(message, "acme", CONNECTION)
    assert (version.reference, version.name, str(version)) == ("acme/vision/digits:v7", "digits:v7", version.reference)
    assert version.is_latest
    assert version.metadata == {"accuracy": 0.9}
    assert (version.created_at, version.expires_at) == (MOMENT, MOMENT)
    assert (version.deleted_at, version.purge_at) == (MOMENT, MOMENT)
    assert convert.version(versions_pb2.Version(), "acme", CONNECTION).expires_at is None
    renamed = {"digest": "tree_digest", "metadata": "metadata_json"}
    moments = {"created_at", "expires_at", "deleted_at", "purge_at"}
    for name in set(version.__slots__) - {"connection", "entity", "metadata"} - moments:
        told = getattr(message, renamed.get(name, name))
        assert getattr(version, name) == (told if isinstance(told, str | int) else tuple(told)), name
    assert len(version.__slots__) - 2 == len(message.DESCRIPTOR.fields)


def test_every_field_of_a_collection_arrives() -> None:
    message = collections_pb2.Collection(
        project="vision",
        name="digits",
        kind=collections_pb2.COLLECTION_KIND_SEQUENCE,
        type="dataset",
        description="# Card",
        tags=["a"],
        version_count=2,
        aliases=[collections_pb2.AliasTarget(alias="latest", number=1)],
        created_at=TIME,
        updated_at=TIME,
        created_by="admin",
        deleted_at=TIME,
        purge_at=TIME,
    )
    assert _unset(message) == set()
    collection = convert.collection(message, "acme")
    assert collection == lading.Collection(
        "acme",
        "vision",
        "digits",
        lading.CollectionKind.SEQUENCE,
        "dataset",
        "# Card",
        ("a",),
        2,
        {"latest": 1},
        MOMENT,
        MOMENT,
        "admin",
        MOMENT,
        MOMENT,
    )
    assert collection.reference == "acme/vision/digits"
    assert len(collection.__slots__) - 1 == len(message.DESCRIPTOR.fields)


def test_every_field_of_a_run_arrives() -> None:
    message = runs_pb2.Run(
        run_id="run",
        project="vision",
        name="first",
        job_type="train",
        state=runs_pb2.RUN_STATE_FINISHED,
        config_json='{"lr":0.1}',
        summary_json='{"loss":1}',
        created_at=TIME,
        heartbeat_at=TIME,
        ended_at=TIME,
        created_by="admin",
    )
    assert _unset(message) == set()
    run = convert.run(message, "acme")
    expected = ("acme", "vision", "run", "first", "train", lading.RunState.FINISHED)
    assert run == lading.RunInfo(*expected, {"lr": 0.1}, {"loss": 1}, MOMENT, MOMENT, MOMENT, "admin")
    assert len(run.__slots__) - 1 == len(message.DESCRIPTOR.fields)
    message.ClearField("ended_at")
    assert convert.run(message, "acme").ended_at is None


def test_an_event_of_something_new_has_nothing_before() -> None:
    message = events_pb2.Event(revision=5, time=TIME, actor="admin", kind="alias.set", after_json='{"number":1}')
    event = convert.event(message)
    assert (event.before, event.after, event.time) == (None, {"number": 1}, MOMENT)


def test_what_is_in_an_events_hash_is_what_the_server_sent() -> None:
    """JSON as text, and whole milliseconds: anything read and written again may be other bytes."""
    message = events_pb2.Event(revision=5, time=TIME, before_json='{ "a":1.50}', sequence=3, chain_hash=b"\x0f" * 32)
    told = convert.chained_event(message)
    assert (told.before, told.sequence, told.time_ms) == ('{ "a":1.50}', 3, round(MOMENT.timestamp() * 1000))
    assert convert.event(message).chain_hash == "0f" * 32


def test_a_measurement_may_be_anything_that_a_float_can() -> None:
    point = convert.metric_point(runs_pb2.MetricPoint(key="loss", step=3, value=math.inf, time_ms=1_700_000_000_123))
    assert point == lading.MetricPoint(3, math.inf, MOMENT)


@pytest.mark.parametrize("text", ["[]", "3", "{"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(lading.Incompatible):
        convert.version(versions_pb2.Version(metadata_json=text), "acme", CONNECTION)


def test_a_state_from_the_future_is_told_as_such() -> None:
    with pytest.raises(lading.Incompatible, match="newer"):
        convert.run(runs_pb2.Run(state=99), "acme")  # type: ignore[arg-type]


def test_beliefs_go_with_the_aliases_that_they_are_about() -> None:
    changes = convert.alias_changes(["a", "b", "a"], ["c"], {"a": 3, "c": None})
    assert [(change.alias, change.remove, change.WhichOneof("belief")) for change in changes] == [
        ("a", False, "expected_number"),
        ("b", False, None),
        ("c", True, "must_not_exist"),
    ]
    assert changes[0].expected_number == 3


def test_a_belief_that_the_alias_is_at_the_first_version_is_one() -> None:
    assert convert.alias_changes(["a"], [], {"a": 0})[0].HasField("expected_number")


@pytest.mark.parametrize(
    ("to_set", "to_remove", "expected"), [(["a"], ["a"], {}), (["a"], [], {"b": 1}), ("best", [], {}), ([], "best", {})]
)
def test_contradictions_are_refused(to_set: Any, to_remove: Any, expected: dict[str, int | None]) -> None:
    with pytest.raises(lading.InvalidArgument):
        convert.alias_changes(to_set, to_remove, expected)


def test_metadata_is_json_or_refused() -> None:
    assert convert.to_json(None) == ""
    assert convert.to_json({"ä": [1, None, {"b": True}]}) == '{"ä":[1,null,{"b":true}]}'
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for bad in ({"a": math.nan}, {"a": object()}, {(1, 2): 1}, circle, [1]):
        with pytest.raises(lading.InvalidArgument):
            convert.to_json(bad)  # type: ignore[arg-type]


def _unset(message: Any) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.fields} - {field.name for field, _ in message.ListFields()}
