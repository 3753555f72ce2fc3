"""A transaction that makes events, and remembers what the request came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash
from lading_server.common.callers import Caller
from lading_server.common.database import Database
from lading_server.common.direct import leave, row_of
from lading_server.common.registry_errors import RequestIdReused
from lading_server.registry.store.rows import JsonObject
from lading_server.registry.store.schema import collections, entities, events, requests, revisions

# Made once: to make a statement costs more than to run it.
# Both rows are locked: PostgreSQL gives what they are after the wait, and not what they were before it.
_HEADS = (
    sa.select(
        revisions.c.revision,
        entities.c.event_count,
        entities.c.chain_hash,
        entities.c.alias_rule_count,
        entities.c.retention_rule_count,
    )
    .join_from(revisions, entities, sa.true())
    .where(revisions.c.id == 1, entities.c.id == sa.bindparam("entity"))
    .with_for_update()
)
_MOVE_HEAD = (
    sa.update(entities)
    .where(entities.c.id == sa.bindparam("entity"))
    .values(event_count=sa.bindparam("count"), chain_hash=sa.bindparam("hash"))
)
_COUNT = sa.update(revisions).where(revisions.c.id == 1).values(revision=sa.bindparam("last"))
_TOUCH = (
    sa.update(collections)
    .where(collections.c.id == sa.bindparam("touched"))
    .values(updated_at_ms=sa.bindparam("changed_at_ms"))
)
_RECALL = sa.select(requests.c.fingerprint, requests.c.result).where(
    requests.c.entity_id == sa.bindparam("entity"), requests.c.request_id == sa.bindparam("id")
)
_REMEMBER = sa.insert(requests)
_ADD_EVENTS = sa.insert(events)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Change:
    """One transaction of one caller. Made by RegistryStore.change.

    Guarantee: events get consecutive revisions, in the order in which changes are committed, and each is chained to
    the one before it of its entity. The row of the counter is locked before anything else is read, so a change sees
    everything that the changes before it did, and no two changes can wait for each other.
    """

    def __init__(
        self, connection: AsyncConnection, database: Database, caller: Caller, entity_id: int, now_ms: int
    ) -> None:
        self.connection = connection
        self.database = database
        self.caller = caller
        self.entity_id = entity_id
        self.now_ms = now_ms
        self._revision = 0
        self._sequence = 0
        self._chain_hash = CHAIN_START
        self._alias_rule_count = 0
        self._retention_rule_count = 0
        self._events: list[dict[str, Any]] = []
        self._touched: set[int] = set()
        self._stamped: set[int] = set()

    async def begin(self) -> None:
        """Wait for the turn of this change."""
        row = await row_of(self.connection, _HEADS, {"entity": self.entity_id})
        self._revision, self._sequence = row.revision, row.event_count
        self._chain_hash = row.chain_hash or CHAIN_START
        self._alias_rule_count = row.alias_rule_count
        self._retention_rule_count = row.retention_rule_count

    @property
    def next_revision(self) -> int:
        """The revision that the next event gets, unless the change is given up."""
        return self._revision + 1

    @property
    def has_alias_rules(self) -> bool:
        """Whether the entity had rules for aliases when the change began."""
        return self._alias_rule_count > 0

    @property
    def has_retention_rules(self) -> bool:
        """Whether the entity had rules of retention when the change began."""
        return self._retention_rule_count > 0

    @property
    def revision(self) -> int:
        """The revision of its last event, or of the last one before it."""
        return self._revision

    def add_event(
        self,
        kind: str,
        project: str,
        *,
        collection: str = "",
        version_uid: bytes | None = None,
        run: str = "",
        before: JsonObject | None = None,
        after: JsonObject | None = None,
    ) -> None:
        """Keep what changed; `kind` is one of those that Event.kind lists in events.proto."""
        self._revision += 1
        self._sequence += 1
        event = ChainedEvent(
            sequence=self._sequence,
            revision=self._revision,
            time_ms=self.now_ms,
            actor=self.caller.principal,
            kind=kind,
            project=project,
            collection=collection,
            version_uid=version_uid.hex() if version_uid else "",
            run=run,
            before=_json(before),
            after=_json(after),
            origin=self.caller.origin,
        )
        self._chain_hash = chain_hash(self._chain_hash, event)
        self._events.append(
            {
                **event._asdict(),
                "version_uid": version_uid,
                "entity_id": self.entity_id,
                "chain_hash": self._chain_hash,
            }
        )

    def touch(self, collection_id: int) -> None:
        """Have a collection's time of the last change be that of this change."""
        self._touched.add(collection_id)

    def stamped(self, collection_id: int) -> None:
        """Tell that a collection's time of the last change was written with something else."""
        self._stamped.add(collection_id)

    async def end(self) -> None:
        """Write the events, and when each collection changed."""
        touched = self._touched - self._stamped
        if touched:
            rows = [{"touched": one, "changed_at_ms": self.now_ms} for one in sorted(touched)]
            await leave(self.connection, _TOUCH, rows)
        if self._events:
            await leave(self.connection, _ADD_EVENTS, self._events)
            await leave(self.connection, _COUNT, [{"last": self._revision}])
            head = {"entity": self.entity_id, "count": self._sequence, "hash": self._chain_hash}
            await leave(self.connection, _MOVE_HEAD, [head])

    async def recall(self, request_id: str, fingerprint: bytes) -> dict[str, Any] | None:
        """Return what the request came to when it came before; None when it did not, or has no id.

        Raises:
            RequestIdReused: The id was used for another call.
        """
        if not request_id:
            return None
        row = await row_of(self.connection, _RECALL, {"entity": self.entity_id, "id": request_id})
        if row is None:
            return None
        if row.fingerprint != fingerprint:
            raise RequestIdReused(f"request_id {request_id!r} was used for another call; take a fresh one")
        result: dict[str, Any] = json.loads(row.result)
        return result

    async def remember(self, request_id: str, fingerprint: bytes, result: Mapping[str, Any]) -> None:
        """Keep what the request came to. Does nothing where it has no id."""
        if request_id:
            row = {
                "entity_id": self.entity_id,
                "request_id": request_id,
                "fingerprint": fingerprint,
                "result": _json(result),
                "created_at_ms": self.now_ms,
            }
            await leave(self.connection, _REMEMBER, [row])


def _json(value: JsonObject | None) -> str:
    return "" if value is None else _ENCODER.encode(value)
