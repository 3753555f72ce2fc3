"""Retention that the server applies by itself."""

from __future__ import annotations

import logging

from lading_server.common.callers import Caller
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.retention import Position, Retention
from lading_server.registry.store.retention import Scope
from lading_server.registry.store.store import RegistryStore

_log = logging.getLogger(__name__)

ACTOR = "retention"
"""Who events say deleted a version whose time was over, or that no rule keeps."""


class RetentionSweep:
    """Deletes what goes, of all entities. Another process may do the same at the same time."""

    def __init__(self, retention: Retention, store: RegistryStore, closing: Closing) -> None:
        self._retention = retention
        self._store = store
        self._closing = closing

    async def run(self) -> None:
        """Delete what goes now; end early when closing begins."""
        async with self._store.database.read() as connection:
            entities = await self._store.retention.entities(connection, self._store.now_ms())
        for entity in entities:
            count, position = 0, Position(self._store.now_ms())
            while not self._closing.started:
                deleted, following = await self._retention.piece(Caller(entity, ACTOR), Scope(), position)
                count += len(deleted)
                if following is None:
                    break
                position = following
            if count:
                _log.info("retention deleted %d versions of %s", count, entity)
