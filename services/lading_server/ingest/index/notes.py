"""What the keepers of the store remember from one run to the next: how far they are, and what the last run came to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.ingest.index.schema import maintenance

# For how long the server that wrote it kept what was collected: `trash_seconds`.
TRASH_NOTE = "trash"


class Notes:
    """Small JSON objects by name. The last one written wins."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def read(self, name: str) -> dict[str, Any]:
        """Return what was written last, or an empty object."""
        async with self._database.read() as connection:
            text = await connection.scalar(sa.select(maintenance.c.value).where(maintenance.c.name == name))
        note: dict[str, Any] = json.loads(text) if text is not None else {}
        return note

    async def write(self, name: str, note: Mapping[str, Any]) -> None:
        """Remember something instead of what was there. It must be JSON."""
        values = {
            "value": json.dumps(note, ensure_ascii=False, separators=(",", ":")),
            "updated_at_ms": int(self._clock() * 1000),
        }
        new = self._database.insert(maintenance).values(name=name, **values)
        async with self._database.write() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=values))
