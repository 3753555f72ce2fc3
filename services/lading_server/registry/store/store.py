"""Opens the registry's database, and gives transactions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from lading_server.common.callers import Caller
from lading_server.common.database import Database, migrate, open_database
from lading_server.registry.store.change import Change
from lading_server.registry.store.collections import CollectionQueries
from lading_server.registry.store.entities import Entities
from lading_server.registry.store.keys import KeyStore
from lading_server.registry.store.lineage import LineageQueries
from lading_server.registry.store.lists import ListQueries
from lading_server.registry.store.members import MemberStore
from lading_server.registry.store.metrics import MetricQueries
from lading_server.registry.store.pending import PendingRows
from lading_server.registry.store.retention import RetentionQueries
from lading_server.registry.store.runs import RunQueries
from lading_server.registry.store.search import VersionSearch
from lading_server.registry.store.versions import VersionQueries

MIGRATIONS = "lading_server.registry.store:migrations"


@dataclass(frozen=True, slots=True)
class RegistryStore:
    """Everything that the registry remembers.

    SQLite and PostgreSQL both pass tests/conformance/test_registry*.py, which is the real definition.
    """

    database: Database
    entities: Entities
    collections: CollectionQueries
    keys: KeyStore
    members: MemberStore
    versions: VersionQueries
    pending: PendingRows
    search: VersionSearch
    lists: ListQueries
    runs: RunQueries
    metrics: MetricQueries
    lineage: LineageQueries
    retention: RetentionQueries
    clock: Callable[[], float]

    @classmethod
    async def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the database and bring its schema up to date.

        Args:
            url: As `open_database` takes it.
            clock: Tells seconds since 1970. Everything that is stamped is stamped by it.

        Raises:
            DatabaseUnavailable: The database cannot be used; the message says what to do.
        """
        database = open_database(url)
        try:
            await migrate(database, MIGRATIONS)
        except BaseException:
            await database.close()
            raise
        entities = Entities(database)
        return cls(
            database=database,
            entities=entities,
            keys=KeyStore(database),
            members=MemberStore(),
            collections=CollectionQueries(),
            versions=VersionQueries(),
            pending=PendingRows(database, lambda: int(clock() * 1000)),
            search=VersionSearch(),
            lists=ListQueries(),
            runs=RunQueries(database),
            metrics=MetricQueries(database),
            lineage=LineageQueries(database),
            retention=RetentionQueries(),
            clock=clock,
        )

    @asynccontextmanager
    async def change(self, caller: Caller) -> AsyncIterator[Change]:
        """Give a transaction that may make events; all of it is done at the end of the block, or nothing."""
        now_ms = self.now_ms()
        entity_id = await self.entities.ensure(caller.entity, now_ms)
        async with self.database.write() as connection:
            change = Change(connection, self.database, caller, entity_id, now_ms)
            await change.begin()
            yield change
            await change.end()

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock() * 1000)

    async def close(self) -> None:
        """Close every connection."""
        await self.database.close()
