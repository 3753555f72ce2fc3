"""Opens the index and bundles its subjects."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from lading_server.common.database import Database, migrate, open_database
from lading_server.ingest.index.blobs import BlobIndex
from lading_server.ingest.index.checks import CheckIndex
from lading_server.ingest.index.chunks import ChunkIndex
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.losses import LossIndex
from lading_server.ingest.index.notes import Notes
from lading_server.ingest.index.packs import PackIndex
from lading_server.ingest.index.pins import PinIndex
from lading_server.ingest.index.recorder import GroupRecorder
from lading_server.ingest.index.rows import Epoch
from lading_server.ingest.index.schema import store
from lading_server.ingest.index.sessions import SessionIndex
from lading_server.ingest.index.trees import TreeIndex
from lading_server.ingest.index.uploads import UploadIndex
from lading_server.ingest.index.usage import UsageIndex

MIGRATIONS = "lading_server.ingest.index:migrations"


@dataclass(frozen=True, slots=True)
class ContentIndex:
    """Everything that ingest remembers besides the packs themselves.

    SQLite and PostgreSQL both pass tests/conformance/test_content_index.py, which is the real definition.
    """

    database: Database
    entities: Entities
    packs: PackIndex
    chunks: ChunkIndex
    sessions: SessionIndex
    blobs: BlobIndex
    trees: TreeIndex
    uploads: UploadIndex
    pins: PinIndex
    usage: UsageIndex
    notes: Notes
    losses: LossIndex
    checks: CheckIndex
    recorder: GroupRecorder

    @classmethod
    async def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the index and bring its schema up to date.

        Args:
            url: As `open_database` takes it.
            clock: Tells seconds since 1970. Leases and idle times are measured by it.

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
            packs=PackIndex(database, entities, clock),
            chunks=ChunkIndex(database, entities, clock),
            sessions=SessionIndex(database, entities, clock),
            blobs=BlobIndex(database, entities),
            trees=TreeIndex(database, entities),
            uploads=UploadIndex(database, entities, clock),
            pins=PinIndex(database, entities, clock),
            usage=UsageIndex(database, entities),
            notes=Notes(database, clock),
            losses=LossIndex(database, entities),
            checks=CheckIndex(database),
            recorder=GroupRecorder(database, entities, clock),
        )

    async def begin_epoch(self) -> Epoch:
        """Count one more opening for writing, and tell which store this is. The first makes the store's id."""
        first = self.database.insert(store).values(id=1, store_id=uuid.uuid4().bytes, writer_epoch=0)
        count = (
            sa.update(store)
            .values(writer_epoch=store.c.writer_epoch + 1)
            .returning(store.c.store_id, store.c.writer_epoch)
        )
        async with self.database.write() as connection:
            await connection.execute(first.on_conflict_do_nothing(index_elements=["id"]))
            store_id, number = (await connection.execute(count)).one()
        return Epoch(uuid.UUID(bytes=store_id), number)

    async def close(self) -> None:
        """Close every connection."""
        await self.database.close()
