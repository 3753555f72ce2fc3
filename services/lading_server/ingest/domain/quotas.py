"""Room for what is about to be stored: reserved before bytes are appended, settled when they are committed.

The transaction that records a batch has the last word, over all servers. What is reserved here keeps what would be
refused there from ever reaching a pack, but for what several servers store at the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lading_server.common.registry_errors import QuotaExceeded
from lading_server.ingest.index.charges import quota_exceeded


class StoredBytes(Protocol):
    """Knows what entities store."""

    async def stored_bytes(self, entity: str) -> int:
        """Return how many bytes an entity stores."""


@dataclass(slots=True, eq=False)
class _Account:
    """What one entity stores and has reserved here, as far as this process knows."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Read, and then counted up; None before it was read. Too much, where something turned out to be there already.
    stored_bytes: int | None = None
    reserved_bytes: int = 0
    # Set when nothing is reserved.
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Room:
    """Reserved room, which ends once: with the commit that it was for, or given back.

    A context manager: a block that raises gives the room back, and any other settles it.
    """

    def __init__(self, account: _Account | None, size_bytes: int) -> None:
        self._account = account
        self._size_bytes = size_bytes

    def __enter__(self) -> Room:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.give_back()

    def settle_with(self, durable: asyncio.Future[None]) -> None:
        """End when a commit does: what it made durable is stored from then on."""
        durable.add_done_callback(self._settled)

    def give_back(self) -> None:
        """End without having used it."""
        self._end(stored=False)

    def _settled(self, durable: asyncio.Future[None]) -> None:
        # One whose stream was cancelled may be stored or not: counted, until it is read anew.
        self._end(stored=durable.cancelled() or durable.exception() is None)

    def _end(self, *, stored: bool) -> None:
        account, self._account = self._account, None
        if account is None:
            return
        account.reserved_bytes -= self._size_bytes
        if stored and account.stored_bytes is not None:
            account.stored_bytes += self._size_bytes
        if not account.reserved_bytes:
            account.settled.set()


class Quotas:
    """The accounts of all entities that have a quota. For one event loop."""

    def __init__(self, index: StoredBytes, flush: Callable[[], None]) -> None:
        """`flush` asks for what was reserved to be committed now."""
        self._index = index
        self._flush = flush
        # One an entity that stores something under a quota: as many as there are entities in the index.
        self._accounts: dict[str, _Account] = {}

    def of(self, entity: str, quota_bytes: int) -> EntityQuota:
        """Return what an entity may store; `quota_bytes` of 0 is any amount."""
        return EntityQuota(
            entity,
            quota_bytes,
            self._accounts.setdefault(entity, _Account()) if quota_bytes else None,
            self._index.stored_bytes,
            self._flush,
        )


class EntityQuota:
    """What one entity may store, as the call says that asks."""

    def __init__(
        self,
        entity: str,
        quota_bytes: int,
        account: _Account | None,
        stored_bytes: Callable[[str], Awaitable[int]],
        flush: Callable[[], None],
    ) -> None:
        """Use `Quotas.of`."""
        self.quota_bytes = quota_bytes
        self._entity = entity
        self._account = account
        self._stored_bytes = stored_bytes
        self._flush = flush

    async def reserve(self, counted_bytes: Sequence[int]) -> Room:
        """Reserve room for what is not stored yet, and counts for so many bytes each: see index/usage.py.

        Raises:
            QuotaExceeded: They do not fit, all together.
        """
        if self._account is None:
            return Room(None, 0)
        room, refused = await self.reserve_some(counted_bytes)
        if refused:
            room.give_back()
            stored_bytes = self._account.stored_bytes or 0
            raise quota_exceeded(self.quota_bytes, stored_bytes, sum(counted_bytes))
        return room

    async def reserve_some(self, counted_bytes: Sequence[int]) -> tuple[Room, dict[int, QuotaExceeded]]:
        """Reserve room for as much as fits, in order; return it, and for the others why, by position."""
        account = self._account
        if account is None:
            return Room(None, 0), {}
        # Taken in turns, so that whoever has to wait for the others is not overtaken for ever.
        async with account.turn:
            if account.stored_bytes is None:
                account.stored_bytes = await self._stored_bytes(self._entity)
            if self._left(account) < sum(counted_bytes):
                await self._look_again(account)
            taken_bytes = 0
            refused: dict[int, QuotaExceeded] = {}
            for position, size_bytes in enumerate(counted_bytes):
                if taken_bytes + size_bytes <= self._left(account):
                    taken_bytes += size_bytes
                else:
                    refused[position] = quota_exceeded(self.quota_bytes, account.stored_bytes, size_bytes)
            account.reserved_bytes += taken_bytes
            if account.reserved_bytes:
                account.settled.clear()
            return Room(account if taken_bytes else None, taken_bytes), refused

    def _left(self, account: _Account) -> int:
        return self.quota_bytes - (account.stored_bytes or 0) - account.reserved_bytes

    async def _look_again(self, account: _Account) -> None:
        """Know exactly what is stored: when nothing is on its way, and from the index."""
        while account.reserved_bytes:
            self._flush()
            await account.settled.wait()
        account.stored_bytes = await self._stored_bytes(self._entity)
