"""What a collector asks: which rows there are, and what keeps them. Changes nothing.

Every answer is of one moment, and each later than the one before. So a generation that was read before an answer, and
has not changed since, says that no reference was added in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from typing import Any, NamedTuple

from lading_server.common.database import Database
from lading_server.ingest.index.mark_queries import PARTS, MarkQueries
from lading_server.ingest.index.rows import REF_BYTES
from lading_server.ingest.index.schema import DIGEST_BYTES

# Digests of one statement.
_BATCH = 8192


class MarkedTree(NamedTuple):
    """A tree that is not condemned."""

    digest: bytes
    generation: int
    created_at_ms: int


class MarkedChunk(NamedTuple):
    """Where a chunk or page lies, and whether a blob of one chunk or a tree needs it; a recipe may as well."""

    digest: bytes
    kind: int
    pack: bytes
    record_offset: int
    stored_bytes: int
    raw_bytes: int
    is_needed: bool


class MarkedPack(NamedTuple):
    """A pack that is sealed or damaged."""

    pack: bytes
    pack_class: int
    state: str
    generation: int
    durable_bytes: int


class MarkedRecipePart(NamedTuple):
    """A part of the recipe of a blob that is not condemned."""

    blob_digest: bytes
    start_bytes: int
    refs: bytes
    size_bytes: int


def digests_in(refs: bytes) -> list[bytes]:
    """Return the digests of packed references."""
    return [refs[at : at + DIGEST_BYTES] for at in range(0, len(refs), REF_BYTES)]


class MarkedTreePage(NamedTuple):
    """A tree that is not condemned, and one of its pages; None where it has none."""

    digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int
    first_path: bytes | None
    page_digest: bytes | None
    entry_count: int | None


class MarkIndex:
    """Questions of a collector, each about one entity by its number."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = MarkQueries(database.dialect)

    async def trees(self, entity_id: int, after: bytes, limit: int) -> list[MarkedTree]:
        """Return up to `limit` trees that are not condemned, by digest, of those after one."""
        rows = await self._database.fetch(self._queries.trees, _page(entity_id, after, limit))
        return [MarkedTree(*row) for row in rows]

    async def kept_trees(self, entity_id: int, digests: Collection[bytes], now_ms: int) -> set[bytes]:
        """Return which of the trees a pin holds, or a session that has not lapsed."""
        wanted = {"entity": entity_id, **self._queries.wanted.of(digests)}
        kept = {row[0] for row in await self._database.fetch(self._queries.pinned, wanted)}
        leased = await self._database.fetch(self._queries.leased_trees, {**wanted, "now_ms": now_ms})
        return kept | {row[0] for row in leased}

    async def pages(self, entity_id: int, after: bytes, limit: int) -> list[bytes]:
        """Return the digests of up to `limit` pages of trees that are not condemned, in order, of those after one."""
        return [row[0] for row in await self._database.fetch(self._queries.pages, _page(entity_id, after, limit))]

    async def blobs(self, entity_id: int, after: bytes, limit: int) -> list[tuple[bytes, int]]:
        """Return digest and generation of up to `limit` blobs that are not condemned, by digest, after one."""
        rows = await self._database.fetch(self._queries.blobs, _page(entity_id, after, limit))
        return [(digest, generation) for digest, generation in rows]

    async def uploaded_blobs(self, entity_id: int) -> AsyncIterator[list[bytes]]:
        """Yield the digests of the blobs that complete uploads made."""
        after = ""
        while rows := await self._database.fetch(self._queries.uploaded, _page(entity_id, after, _BATCH)):
            yield [digest for _, digest in rows]
            after = rows[-1][0]

    async def leased_blobs(self, entity_id: int, digests: Collection[bytes], now_ms: int) -> set[bytes]:
        """Return which of the blobs have a chunk in a pack that a session holds which has not lapsed."""
        if not await self.held_packs(entity_id, now_ms):
            return set()
        # A blob of one chunk has that chunk's digest.
        leased = await self._held_chunks(entity_id, digests, now_ms)
        pending: defaultdict[bytes, set[bytes]] = defaultdict(set)
        async for part in self.recipe_parts_of(entity_id, [digest for digest in digests if digest not in leased]):
            for digest in digests_in(part.refs):
                pending[digest].add(part.blob_digest)
            if len(pending) >= _BATCH:
                leased |= await self._holders(entity_id, pending, now_ms)
                pending.clear()
        return leased | await self._holders(entity_id, pending, now_ms)

    async def packs(self, entity_id: int) -> list[MarkedPack]:
        """Return all packs that are sealed or damaged, by id."""
        rows = await self._database.fetch(self._queries.packs, {"entity": entity_id})
        return [MarkedPack(*row) for row in rows]

    async def held_packs(self, entity_id: int, now_ms: int) -> set[bytes]:
        """Return the packs that sessions hold which have not lapsed."""
        rows = await self._database.fetch(self._queries.held_packs, {"entity": entity_id, "now_ms": now_ms})
        return {row[0] for row in rows}

    async def chunks(self, entity_id: int, after: bytes, limit: int) -> list[MarkedChunk]:
        """Return up to `limit` chunks and pages by digest, of those after one."""
        rows = await self._database.fetch(self._queries.chunks, _page(entity_id, after, limit))
        return [MarkedChunk(*row) for row in rows]

    async def chunks_in(self, entity_id: int, pack: bytes) -> list[MarkedChunk]:
        """Return what lies in a pack, in the order in which it lies there."""
        rows = await self._database.fetch(self._queries.chunks_in, {"entity": entity_id, "pack": pack})
        return [MarkedChunk(*row) for row in rows]

    async def recipe_parts(self, entity_id: int) -> AsyncIterator[MarkedRecipePart]:
        """Yield every part of the recipes of blobs that are not condemned."""
        place: dict[str, Any] = {"entity": entity_id, "most": PARTS, "blob": b"", "start": -1}
        while rows := await self._database.fetch(self._queries.parts, place):
            for row in rows:
                yield MarkedRecipePart(*row)
            place |= {"blob": rows[-1][0], "start": rows[-1][1]}

    async def recipe_parts_of(self, entity_id: int, digests: Collection[bytes]) -> AsyncIterator[MarkedRecipePart]:
        """Yield the parts of the recipes of those of the blobs that are not condemned and have several chunks."""
        if not digests:
            return
        wanted = {"entity": entity_id, **self._queries.wanted.of(digests)}
        async with (
            self._database.read() as connection,
            connection.stream(self._queries.parts_of, wanted) as rows,
        ):
            async for row in rows:
                yield MarkedRecipePart(*row)

    async def tree_pages_of(self, entity_id: int, digests: Collection[bytes]) -> AsyncIterator[MarkedTreePage]:
        """Yield the pages of those of the trees that are not condemned: a tree's together, in order."""
        if not digests:
            return
        wanted = {"entity": entity_id, **self._queries.wanted.of(digests)}
        async with (
            self._database.read() as connection,
            connection.stream(self._queries.tree_pages_of, wanted) as rows,
        ):
            async for row in rows:
                yield MarkedTreePage(*row)

    async def upload_refs(self, entity_id: int) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the packed references of open uploads, with the uploads' ids."""
        place: dict[str, Any] = {"entity": entity_id, "most": PARTS, "upload": "", "start": -1}
        while rows := await self._database.fetch(self._queries.upload_refs, place):
            for upload_id, _, refs in rows:
                yield upload_id, refs
            place |= {"upload": rows[-1][0], "start": rows[-1][1]}

    async def _holders(self, entity_id: int, blobs_of: defaultdict[bytes, set[bytes]], now_ms: int) -> set[bytes]:
        held = await self._held_chunks(entity_id, list(blobs_of), now_ms)
        return {blob for digest in held for blob in blobs_of[digest]}

    async def _held_chunks(self, entity_id: int, digests: Collection[bytes], now_ms: int) -> set[bytes]:
        if not digests:
            return set()
        wanted = {"entity": entity_id, "now_ms": now_ms, **self._queries.wanted.of(digests)}
        return {row[0] for row in await self._database.fetch(self._queries.held_chunks, wanted)}


def _page(entity_id: int, after: bytes | str, limit: int) -> dict[str, Any]:
    return {"entity": entity_id, "after": after, "most": limit}
