"""Group commit: the rows of many batches in one transaction, and an answer for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from lading_server.common.database import Database, is_conflict
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.group import BatchesRejected, GroupWrite, Item, LostRace
from lading_server.ingest.index.rows import IndexBatch
from lading_server.ingest.index.statements import GroupStatements

# How often a group that lost against another server is tried again. Twenty writers at once were not seen to lose at
# all, since rows are locked in one order; this is for what does not keep to it, like a person with a shell.
_RETRIES = 10


class GroupRecorder:
    """Writes groups. Safe for many tasks at once; on SQLite they take turns."""

    def __init__(self, database: Database, entities: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities
        self._clock = clock
        self._statements = GroupStatements(database)

    async def record(self, batches: Sequence[IndexBatch], durable: Mapping[UUID, int]) -> list[Exception | None]:
        """Write the batches in one transaction, and return for each None or why it was not written.

        A batch that cannot be written leaves nothing; the others are written all the same. Chunks that lie in a live
        pack already stay there. A blob or tree that is there already gets the recipe or the pages of this batch.

        Args:
            durable: How many bytes of each pack are safe on disk. Never made smaller.

        Returns:
            PacksGone: A pack that the batch wrote to or requires is not live.
            UploadTakenOver: The upload is not the writer's any more.
            OffsetMismatch: The upload's part before this one was not written.
            QuotaExceeded: The entity would store more than the batch's quota.

        Raises:
            DatabaseUnavailable, SQLAlchemyError: Nothing was written.
        """
        numbers = {name: await self._entities.ensure(name) for name in sorted({batch.entity for batch in batches})}
        outcomes: dict[int, Exception] = {}
        conflicts = 0
        while True:
            items = [
                Item(number, numbers[batch.entity], batch)
                for number, batch in enumerate(batches)
                if number not in outcomes
            ]
            try:
                await self._write(items, durable)
                return [outcomes.get(number) for number in range(len(batches))]
            except BatchesRejected as rejected:
                # At least one more each time, so this ends.
                outcomes |= rejected.reasons
            except LostRace:
                conflicts += 1
                if conflicts > _RETRIES:
                    raise
            except DBAPIError as error:
                conflicts += 1
                if conflicts > _RETRIES or not is_conflict(error):
                    raise

    async def _write(self, items: Sequence[Item], durable: Mapping[UUID, int]) -> None:
        now_ms = int(self._clock() * 1000)
        async with self._database.write() as connection:
            await GroupWrite(connection, self._database, self._statements, items, now_ms).run(durable)
