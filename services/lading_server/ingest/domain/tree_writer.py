"""PutTree: entries come sorted, are checked, and become pages and a tree."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from lading_format.digest import blake3_digest, format_digest
from lading_format.tree import FileEntry, TreeEntry, TreeHasher
from lading_server.common.errors import (
    ContentMoved,
    DigestMismatch,
    MissingBlobs,
    SizeMismatch,
    TooManyItems,
)
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.pack_pool import PackLease
from lading_server.ingest.domain.quotas import EntityQuota
from lading_server.ingest.domain.tree_pages import (
    PageBuilder,
    PageSummary,
    TreePage,
    TreeTotals,
    encode_tree_record,
)
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import ChunkRow, IndexBatch, NewTree, NewTreePage
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import RecordType, record_span
from lading_server.ingest.packs.writer import NewRecord

# Pages that wait to be stored: bounds the memory of a tree of any size.
_FLUSH_BYTES = 4 << 20
# Missing blobs that an error names; the client asks StatBlobs for the rest.
_NAMED = 20


class TreeWriter:
    """The receiving end of one PutTree stream. Nothing of it counts before `finish` returns."""

    def __init__(
        self,
        index: ContentIndex,
        lease: PackLease,
        committer: GroupCommitter,
        workers: Workers,
        *,
        entity: str,
        session: bytes,
        quota: EntityQuota,
        max_entries: int,
    ) -> None:
        self._index = index
        self._lease = lease
        self._committer = committer
        self._workers = workers
        self._entity = entity
        self._session = session
        self._quota = quota
        self._max_entries = max_entries
        self._hasher = TreeHasher()
        self._builder = PageBuilder()
        self._entry_count = 0
        self._waiting: list[TreePage] = []
        self._waiting_bytes = 0
        self._pages: list[PageSummary] = []
        self._stored: list[asyncio.Future[None]] = []

    async def add(self, entries: Sequence[TreeEntry]) -> None:
        """Take the next entries.

        Raises:
            InvalidPath, PathConflict, NotSorted, InvalidReference, InvalidDigest: As TreeHasher.add.
            TooManyItems: The tree is larger than the limit.
            MissingBlobs, SizeMismatch: An entry's blob is not committed, or not as long.
            QuotaExceeded: The pages do not fit.
        """
        self._entry_count += len(entries)
        if self._entry_count > self._max_entries:
            raise TooManyItems(
                f"a tree may have {self._max_entries:,} entries; pack small files into archives",
                limit_name="max_tree_entries",
                limit=self._max_entries,
            )
        for page in await self._workers.run(self._digest, entries):
            self._keep(page)
        await self._check_blobs([entry for entry in entries if isinstance(entry, FileEntry)])
        if self._waiting_bytes >= _FLUSH_BYTES:
            await self._store_pages()

    async def finish(self, expected: bytes | None) -> tuple[TreeTotals, bool]:
        """Make the tree; return its totals and whether the entity already had it.

        Raises:
            PathConflict: Two paths are one on some systems.
            DigestMismatch: The tree's digest is not `expected`.
            QuotaExceeded: The pages do not fit.
            DiskLow, StorageFailed: As PackLease.append.
        """
        digest = await self._workers.run(self._hasher.finish)
        hasher = self._hasher
        totals = TreeTotals(digest, hasher.file_count, hasher.reference_count, hasher.size_bytes)
        if expected is not None and expected != digest:
            raise DigestMismatch(
                f"the entries make tree {format_digest(digest)} and not {format_digest(expected)}; "
                "compare the sorted listings",
                expected=format_digest(expected),
                actual=format_digest(digest),
            )
        if await self._index.trees.has_every_page(self._entity, digest):
            return totals, True
        last = self._builder.finish()
        if last is not None:
            self._keep(last)
        await self._store_pages()
        await self._store_tree(totals)
        return totals, False

    def _digest(self, entries: Sequence[TreeEntry]) -> list[TreePage]:
        pages: list[TreePage] = []
        for entry in entries:
            self._hasher.add(entry)
            page = self._builder.add(entry)
            if page is not None:
                pages.append(page)
        return pages

    def _keep(self, page: TreePage) -> None:
        self._pages.append(PageSummary(page.first_path, page.digest, page.entry_count))
        self._waiting.append(page)
        self._waiting_bytes += len(page.payload)

    async def _check_blobs(self, files: Sequence[FileEntry]) -> None:
        rows = await self._index.blobs.stat(self._entity, list({entry.digest for entry in files}))
        missing = [entry for entry in files if entry.digest not in rows]
        if missing:
            names = ",".join(format_digest(entry.digest) for entry in missing[:_NAMED])
            raise MissingBlobs(
                f"{len(missing)} blobs are not committed, the first for {missing[0].path!r}; "
                "commit them, then put the tree again",
                digests=names,
            )
        for entry in files:
            actual = rows[entry.digest].size_bytes
            if actual != entry.size_bytes:
                raise SizeMismatch(
                    f"{entry.path!r} is said to have {entry.size_bytes} bytes and its blob has {actual}",
                    path=entry.path,
                    expected=entry.size_bytes,
                    actual=actual,
                )

    async def _store_pages(self) -> None:
        """Append the pages that the entity does not have yet."""
        pages, self._waiting, self._waiting_bytes = self._waiting, [], 0
        unique = {page.digest: page for page in pages}
        present = await self._index.chunks.find(self._entity, self._session, list(unique))
        new = [page for digest, page in unique.items() if digest not in present]
        if not new:
            return
        records = [NewRecord(RecordType.TREE_PAGE, page.digest, page.payload, None) for page in new]
        with await self._quota.reserve([record_span(len(page.payload)) for page in new]) as room:
            pack, locations = await self._lease.append(records)
            rows = [
                ChunkRow(record.digest, RecordType.TREE_PAGE, location)
                for record, location in zip(records, locations, strict=True)
            ]
            batch = IndexBatch(
                entity=self._entity, session=self._session, chunks=rows, quota_bytes=self._quota.quota_bytes
            )
            durable = pack.submit(batch, sum(location.stored_bytes for location in locations))
            room.settle_with(durable)
        self._stored.append(durable)

    async def _store_tree(self, totals: TreeTotals) -> None:
        payload = encode_tree_record(totals, self._pages)
        record = NewRecord(RecordType.TREE, blake3_digest(payload), payload, None)
        pack, locations = await self._lease.append([record])
        for future in self._stored:
            self._committer.flush()
            await future
        tree = NewTree(
            digest=totals.digest,
            file_count=totals.file_count,
            reference_count=totals.reference_count,
            size_bytes=totals.size_bytes,
            pages=[
                NewTreePage(seq, page.first_path, page.digest, page.entry_count) for seq, page in enumerate(self._pages)
            ],
        )
        batch = IndexBatch(
            entity=self._entity, session=self._session, trees=[tree], required_packs=await self._packs_of_pages()
        )
        future = pack.submit(batch, sum(location.stored_bytes for location in locations))
        self._committer.flush()
        await future

    async def _packs_of_pages(self) -> set[UUID]:
        """Return where the pages lie: a tree is live only if all of them are. Raises ContentMoved."""
        digests = list({page.digest for page in self._pages})
        located = await self._index.chunks.locate(self._entity, digests)
        if len(located) < len(digests):
            raise ContentMoved("pages of the tree were collected meanwhile; put the tree again")
        return {location.pack for location in located.values()}
