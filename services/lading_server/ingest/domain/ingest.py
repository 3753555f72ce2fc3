"""Everything of ingest, put together: from settings to objects that answer questions, and back down in order."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from lading_server.common.errors import TooManyItems
from lading_server.common.settings import Settings
from lading_server.ingest.domain.blobs import BlobIntake
from lading_server.ingest.domain.check import Checker
from lading_server.ingest.domain.chunks import ChunkSink
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.content import ContentReader
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.pack_pool import PackPool
from lading_server.ingest.domain.pins import Pins
from lading_server.ingest.domain.quotas import Quotas
from lading_server.ingest.domain.recipes import SpanReader
from lading_server.ingest.domain.tree_reader import TreeReader
from lading_server.ingest.domain.tree_writer import TreeWriter
from lading_server.ingest.domain.uploads import FileUpload, UploadContext
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.storage import PackClass, PackStorage

# How long a renewed session is believed, and how many of them are remembered. Far below the shortest lease.
_RENEW_SECONDS = 0.5
_RENEWED_SESSIONS = 10_000


@dataclass(frozen=True)
class Ingest:
    """The content half of Lading. Every method is inside the entity that it is given."""

    settings: Settings
    index: ContentIndex
    storage: PackStorage
    workers: Workers
    committer: GroupCommitter
    pool: PackPool
    spans: SpanReader
    content: ContentReader
    trees: TreeReader
    pins: Pins
    quotas: Quotas
    losses: Losses
    checker: Checker
    # When each session was last renewed, by the monotonic clock; the oldest first.
    _renewed: dict[tuple[str, bytes], float] = field(default_factory=dict)

    async def open_session(self, entity: str) -> bytes:
        """Take a lease for an uploader."""
        return await self.index.sessions.open(entity, self.settings.session_ttl_seconds)

    async def renew_session(self, entity: str, session: bytes) -> None:
        """Raise SessionExpired unless the session holds; it holds for its full time again.

        A session that was renewed a moment ago is believed: a call of the fast path comes every few megabytes. The
        index looks again where it matters, when something is held for the session.
        """
        key = (entity, session)
        now = time.monotonic()
        renewed = self._renewed.get(key)
        if renewed is not None and now - renewed < _RENEW_SECONDS:
            return
        self._renewed.pop(key, None)
        await self.index.sessions.renew(entity, session, self.settings.session_ttl_seconds)
        self._renewed[key] = now
        while len(self._renewed) > _RENEWED_SESSIONS:
            del self._renewed[next(iter(self._renewed))]

    async def close_session(self, entity: str, session: bytes) -> None:
        """End a lease; one that is not there is not an error."""
        self._renewed.pop((entity, session), None)
        await self.index.sessions.close(entity, session)

    async def find_missing(self, entity: str, session: bytes, digests: Sequence[bytes]) -> list[int]:
        """Return the positions of the chunks that the entity does not have. Raises TooManyItems, SessionExpired."""
        self.check_count(len(digests), "max_digests_per_call")
        await self.renew_session(entity, session)
        present = await self.index.chunks.find(entity, session, list(set(digests)))
        return [position for position, digest in enumerate(digests) if digest not in present]

    @asynccontextmanager
    async def chunk_sink(self, entity: str, session: bytes, quota_bytes: int) -> AsyncIterator[ChunkSink]:
        """Receive chunks, for an entity that may store so much in all. Raises SessionExpired."""
        await self.renew_session(entity, session)
        async with self.pool.lease(entity, PackClass.DATA) as lease:
            yield ChunkSink(
                lease,
                self.workers,
                self.index.chunks,
                self.committer,
                entity=entity,
                session=session,
                quota=self.quotas.of(entity, quota_bytes),
                keep_session=partial(self.renew_session, entity, session),
                window_bytes=self.settings.window_bytes,
                max_chunk_bytes=self.settings.max_chunk_bytes,
            )

    async def blob_intake(self, entity: str, session: bytes, quota_bytes: int) -> BlobIntake:
        """Receive recipes, for an entity that may store so much in all. Raises SessionExpired."""
        await self.renew_session(entity, session)
        return BlobIntake(
            self.index,
            self.pool,
            self.committer,
            self.spans,
            entity=entity,
            session=session,
            quota=self.quotas.of(entity, quota_bytes),
            max_chunks_per_blob=self.settings.max_chunks_per_blob,
        )

    @asynccontextmanager
    async def tree_writer(self, entity: str, session: bytes, quota_bytes: int) -> AsyncIterator[TreeWriter]:
        """Receive a tree, for an entity that may store so much in all. Raises SessionExpired."""
        await self.renew_session(entity, session)
        async with self.pool.lease(entity, PackClass.META) as lease:
            yield TreeWriter(
                self.index,
                lease,
                self.committer,
                self.workers,
                entity=entity,
                session=session,
                quota=self.quotas.of(entity, quota_bytes),
                max_entries=self.settings.max_tree_entries,
            )

    @asynccontextmanager
    async def file_upload(
        self, entity: str, session: bytes | None, upload_id: str, quota_bytes: int
    ) -> AsyncIterator[FileUpload]:
        """Receive a file, for an entity that may store so much in all. Raises SessionExpired."""
        if session is not None:
            await self.renew_session(entity, session)
        context = UploadContext(
            self.index,
            self.pool,
            self.committer,
            self.spans,
            self.workers,
            self.settings.window_bytes,
            self.settings.max_chunks_per_blob,
        )
        async with self.pool.lease(entity, PackClass.DATA) as lease:
            quota = self.quotas.of(entity, quota_bytes)
            yield FileUpload(context, lease, entity=entity, session=session, upload_id=upload_id, quota=quota)

    def check_count(self, count: int, limit_name: str) -> None:
        """Raise TooManyItems when there are more than the limit of that name allows."""
        limit = int(getattr(self.settings, limit_name))
        if count > limit:
            raise TooManyItems(
                f"{count:,} items in one message and {limit_name} is {limit:,}; split it",
                limit_name=limit_name,
                limit=limit,
            )
