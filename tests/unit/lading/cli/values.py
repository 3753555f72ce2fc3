"""Values of the SDK, as the tests of the command line need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import lading

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def version(collection: str = "digits", number: int = 0, **fields: Any) -> lading.Version:
    """A version; what is not given is as dull as can be."""
    values: dict[str, Any] = {
        "uid": f"{collection}-{number}",
        "entity": "acme",
        "project": "vision",
        "collection": collection,
        "number": number,
        "type": "dataset",
        "digest": "b3:" + "0" * 64,
        "size_bytes": 1234,
        "file_count": 2,
        "reference_count": 0,
        "description": "",
        "metadata": {},
        "tags": (),
        "aliases": (),
        "created_at": NOON,
        "created_by": "admin",
        "run_id": "",
        "is_link": False,
        "source": "",
        "source_uid": "",
        "expires_at": None,
        "deleted_at": None,
        "purge_at": None,
        "connection": cast(Any, None),
    }
    return lading.Version(**{**values, **fields})


def run(run_id: str, **fields: Any) -> lading.RunInfo:
    """A run that is finished."""
    values: dict[str, Any] = {
        "entity": "acme",
        "project": "vision",
        "run_id": run_id,
        "name": run_id,
        "job_type": "train",
        "state": lading.RunState.FINISHED,
        "config": {},
        "summary": {},
        "created_at": NOON,
        "heartbeat_at": NOON,
        "ended_at": NOON,
        "created_by": "admin",
    }
    return lading.RunInfo(**{**values, **fields})


def event(kind: str, **fields: Any) -> lading.Event:
    """A change of a collection."""
    values: dict[str, Any] = {
        "revision": 1,
        "time": NOON,
        "actor": "admin",
        "kind": kind,
        "project": "vision",
        "collection": "digits",
        "version_uid": "",
        "run_id": "",
        "before": None,
        "after": None,
        "sequence": 1,
        "origin": "10.0.0.7",
        "chain_hash": "0" * 64,
    }
    return lading.Event(**{**values, **fields})
