"""What is needed: the blobs that trees name, the chunks that blobs and trees are made of.

Nothing is held in memory but a window of digests, so what does not fit takes several passes over the trees' pages, or
over the recipes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.tree_pages import page_blobs
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.digests import DigestWindow
from lading_server.ingest.index.marks import MarkIndex, digests_in
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import record_span
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import Location

# Pages of trees read at once: 4 MiB at most.
PAGES = 16
# Chunks or pages whose rows are read at once.
_CHUNKS = 8192


class PageUnreadable(Exception):
    """A page of a tree cannot be read, so nobody knows which blobs the tree needs."""

    def __init__(self, page_digest: bytes) -> None:
        super().__init__(f"page b3:{page_digest.hex()} of a tree cannot be read")


@dataclass(slots=True)
class PackContent:
    """What a pack has: rows that point to it, and of these, or of its other records, what is needed.

    `needed_bytes` are those of records, with header and padding.
    """

    rows: int = 0
    needed_count: int = 0
    needed_bytes: int = 0

    def need(self, stored_bytes: int) -> None:
        """Count a record that is needed."""
        self.needed_count += 1
        self.needed_bytes += record_span(stored_bytes)


class Reachability:
    """Computes what is needed, of one entity by its name and number. Changes nothing."""

    def __init__(
        self, index: ContentIndex, marks: MarkIndex, storage: PackStorage, workers: Workers, window_digests: int
    ) -> None:
        """`window_digests`: how many of them are in memory at a time, up to twice that while they are collected."""
        self._index = index
        self._marks = marks
        self._storage = storage
        self._workers = workers
        self._window_digests = window_digests

    async def unneeded_blobs(self, entity: str, entity_id: int) -> AsyncIterator[dict[bytes, int]]:
        """Yield blobs that no tree names and no complete upload made, with the generations that they had before.

        Some thousand at a time.

        Raises:
            PageUnreadable: Nothing can be said of any blob.
        """
        after: bytes | None = b""
        while after is not None:
            candidates = await self._candidates(entity_id, after)
            if not candidates:
                return
            last = candidates[-1][-1][0] if candidates and sum(map(len, candidates)) >= self._window_digests else None
            window = DigestWindow(after, self._window_digests, last)
            await self._add_named(entity, entity_id, window)
            for batch in candidates:
                unneeded = {
                    digest: generation
                    for digest, generation in batch
                    if digest not in window and (window.last is None or digest <= window.last)
                }
                if unneeded:
                    yield unneeded
            after = window.last

    async def content_of_packs(self, entity_id: int) -> dict[bytes, PackContent]:
        """Return for each pack what of it is needed, as far as rows say; RECIPE and TREE records have none."""
        content: defaultdict[bytes, PackContent] = defaultdict(PackContent)
        after: bytes | None = b""
        while after is not None:
            window = DigestWindow(after, self._window_digests)
            async for digests in self._named_chunks(entity_id):
                window.update(digests)
            at = after
            while rows := await self._marks.chunks(entity_id, at, _CHUNKS):
                for row in rows:
                    if window.last is not None and row.digest > window.last:
                        break
                    pack = content[row.pack]
                    pack.rows += 1
                    if row.is_needed or row.digest in window:
                        pack.need(row.stored_bytes)
                at = rows[-1].digest
                if window.last is not None and at > window.last:
                    break
            after = window.last
        return content

    async def named_among(self, entity_id: int, digests: Collection[bytes]) -> set[bytes]:
        """Return which of the digests a recipe or an open upload has."""
        wanted, found = set(digests), set[bytes]()
        async for some in self._named_chunks(entity_id):
            found.update(wanted.intersection(some))
        return found

    async def read_pages(self, entity: str, pages: Sequence[bytes]) -> list[memoryview]:
        """Return the payloads of pages. Raises PageUnreadable."""
        places = await self._index.chunks.locate(entity, pages)
        for page in pages:
            if page not in places:
                raise PageUnreadable(page)
        return await self._workers.run(self._read, pages, [places[page] for page in pages])

    async def _candidates(self, entity_id: int, after: bytes) -> list[list[tuple[bytes, int]]]:
        """Return the next blobs and their generations, as many as a window has. Read before what needs them."""
        batches: list[list[tuple[bytes, int]]] = []
        left = self._window_digests
        while left > 0 and (rows := await self._marks.blobs(entity_id, after, min(left, _CHUNKS))):
            batches.append(rows)
            left -= len(rows)
            after = rows[-1][0]
        return batches

    async def _add_named(self, entity: str, entity_id: int, window: DigestWindow) -> None:
        async for digests in self._marks.uploaded_blobs(entity_id):
            window.update(digests)
        after = b""
        while pages := await self._marks.pages(entity_id, after, PAGES):
            for payload in await self.read_pages(entity, pages):
                window.update(page_blobs(payload))
            after = pages[-1]

    async def _named_chunks(self, entity_id: int) -> AsyncIterator[list[bytes]]:
        async for part in self._marks.recipe_parts(entity_id):
            yield digests_in(part.refs)
        async for _, refs in self._marks.upload_refs(entity_id):
            yield digests_in(refs)

    def _read(self, pages: Sequence[bytes], places: Sequence[Location]) -> list[memoryview]:
        payloads: list[memoryview] = []
        for page, place in zip(pages, places, strict=True):
            try:
                payloads += read_payloads(self._storage, [place], [page])
            except CorruptRecord as error:
                raise PageUnreadable(page) from error
        return payloads
