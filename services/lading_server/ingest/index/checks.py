"""What a check asks of the index, a page of rows at a time. Judges little, and changes nothing but a wrong sum."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ID_BYTES,
    READABLE_STATES,
    ContentState,
    PackState,
    PinState,
    UploadState,
    blobs,
    chunks,
    entities,
    packs,
    pins,
    recipe_parts,
    tree_pages,
    trees,
    uploads,
    usage,
)
from lading_server.ingest.index.sql import byte_table
from lading_server.ingest.index.usage import RECORD_SPAN, add_usage
from lading_server.ingest.packs.format import ALIGNMENT, HEADER_BYTES, RecordType

# Rows of recipes, up to 36 KiB each, and of trees' pages that are in memory at once.
_PARTS_AT_ONCE = 64
_PAGES_AT_ONCE = 1000


class Tenant(NamedTuple):
    """An entity: its number and its name."""

    id: int
    name: str


class OddChunk(NamedTuple):
    """A chunk's row that cannot be right. `pack_state` is None where there is no such pack."""

    digest: bytes
    pack: UUID
    offset: int
    pack_state: str | None


class BlobCheck(NamedTuple):
    """A blob's row. `chunk_bytes` is the size of the chunk that has its digest, if that lies in a live pack."""

    digest: bytes
    size_bytes: int
    chunk_count: int
    state: str
    generation: int
    is_condemned: bool
    chunk_bytes: int | None


class TreeCheck(NamedTuple):
    """A tree's row."""

    digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int
    page_count: int
    state: str
    generation: int
    is_condemned: bool


class PageCheck(NamedTuple):
    """A tree's page. `is_there`: whether it lies in a live pack."""

    tree: bytes
    seq: int
    first_path: bytes
    entry_count: int
    page_digest: bytes
    is_there: bool


class PinCheck(NamedTuple):
    """A pin that holds. `tree_state` is None where there is no such tree."""

    version_uid: bytes
    tree_digest: bytes
    tree_state: str | None

    @property
    def is_readable(self) -> bool:
        """Whether its tree is there, damaged or not."""
        return self.tree_state in {state.value for state in READABLE_STATES}


class PackCheck(NamedTuple):
    """A pack whose content counts."""

    pack: UUID
    entity: str
    pack_class: int
    is_sealed: bool
    durable_bytes: int


class PackedRecord(NamedTuple):
    """What the index says of a record in a pack."""

    offset: int
    digest: bytes
    kind: int
    stored_bytes: int
    raw_bytes: int


class CheckIndex:
    """Rows as a check needs them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tenants(self, after: int, only: str, limit: int) -> list[Tenant]:
        """Return up to `limit` entities after a number; `only` one of a name, if it is not empty."""
        query = sa.select(entities.c.id, entities.c.name).where(entities.c.id > after)
        if only:
            query = query.where(entities.c.name == only)
        return [Tenant(*row) for row in await self._rows(query.order_by(entities.c.id).limit(limit))]

    async def last_chunk(self, entity_id: int, after: bytes, limit: int) -> tuple[bytes | None, int]:
        """Return the last of the `limit` chunks that come after one, and how many these are."""
        some = (
            sa.select(chunks.c.digest)
            .where(chunks.c.entity_id == entity_id, chunks.c.digest > after)
            .order_by(chunks.c.digest)
            .limit(limit)
            .subquery()
        )
        ((count,),) = await self._rows(sa.select(sa.func.count()).select_from(some))
        # PostgreSQL has no max of bytes before version 18.
        rows = await self._rows(sa.select(some.c.digest).order_by(some.c.digest.desc()).limit(1))
        return (rows[0][0] if rows else None), count

    async def odd_chunks(self, entity_id: int, after: bytes, upto: bytes) -> list[OddChunk]:
        """Return the rows of a range that cannot be right: each is one that no code writes."""
        kinds = (RecordType.CHUNK.value, RecordType.TREE_PAGE.value)
        live_and_past_end = sa.and_(is_live(), chunks.c.record_offset + RECORD_SPAN > packs.c.durable_bytes)
        query = (
            sa.select(chunks.c.digest, chunks.c.pack_id, chunks.c.record_offset, packs.c.state)
            .outerjoin(packs, packs.c.id == chunks.c.pack_id)
            .where(chunks.c.entity_id == entity_id, chunks.c.digest > after, chunks.c.digest <= upto)
            .where(
                sa.or_(
                    packs.c.id.is_(None),
                    packs.c.entity_id != chunks.c.entity_id,
                    chunks.c.kind.not_in(kinds),
                    chunks.c.raw_bytes != chunks.c.stored_bytes,
                    chunks.c.record_offset < HEADER_BYTES,
                    chunks.c.record_offset % ALIGNMENT != 0,
                    live_and_past_end,
                )
            )
            .order_by(chunks.c.digest)
        )
        return [OddChunk(row[0], UUID(bytes=row[1]), *row[2:]) for row in await self._rows(query)]

    async def blobs(self, entity_id: int, after: bytes, limit: int) -> list[BlobCheck]:
        """Return up to `limit` blobs of any state, by digest, after one."""
        return await self._blobs(entity_id, blobs.c.digest > after, limit)

    async def blob(self, entity_id: int, digest: bytes) -> BlobCheck | None:
        """Return one blob that can be read, or None."""
        rows = await self._blobs(entity_id, blobs.c.digest == digest, 1)
        return rows[0] if rows and rows[0].state in READABLE_STATES else None

    async def recipes(self, entity_id: int, digests: Collection[bytes]) -> AsyncIterator[tuple[bytes, int, bytes]]:
        """Yield the parts of these blobs' recipes in order: blob, where the part begins, packed references."""
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        query = (
            sa.select(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes, recipe_parts.c.refs)
            .select_from(wanted.table)
            .join(
                recipe_parts,
                sa.and_(recipe_parts.c.entity_id == entity_id, recipe_parts.c.blob_digest == wanted.value),
            )
            .order_by(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes)
            .execution_options(yield_per=_PARTS_AT_ONCE)
        )
        async with self._database.read() as connection, connection.stream(query) as rows:
            async for blob, start_bytes, refs in rows:
                yield blob, start_bytes, refs

    async def chunk_sizes(self, entity_id: int, digests: Collection[bytes]) -> dict[bytes, int]:
        """Return the sizes of those chunks that lie in live packs."""
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        query = (
            sa.select(chunks.c.digest, chunks.c.raw_bytes)
            .select_from(wanted.table)
            .join(chunks, sa.and_(chunks.c.entity_id == entity_id, chunks.c.digest == wanted.value))
            .join(packs, packs.c.id == chunks.c.pack_id)
            .where(is_live())
        )
        return {row[0]: row[1] for row in await self._rows(query)}

    async def trees(self, entity_id: int, after: bytes, limit: int) -> list[TreeCheck]:
        """Return up to `limit` trees of any state, by digest, after one."""
        return await self._trees(entity_id, trees.c.digest > after, limit)

    async def tree(self, entity_id: int, digest: bytes) -> TreeCheck | None:
        """Return one tree that can be read, or None."""
        rows = await self._trees(entity_id, trees.c.digest == digest, 1)
        return rows[0] if rows and rows[0].state in READABLE_STATES else None

    async def pages(self, entity_id: int, digests: Collection[bytes]) -> AsyncIterator[PageCheck]:
        """Yield the pages of these trees, by tree and in order."""
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        its_chunk = sa.and_(chunks.c.entity_id == entity_id, chunks.c.digest == tree_pages.c.page_digest)
        query = (
            sa.select(
                tree_pages.c.tree_digest,
                tree_pages.c.seq,
                tree_pages.c.first_path,
                tree_pages.c.entry_count,
                tree_pages.c.page_digest,
                packs.c.id.is_not(None),
            )
            .select_from(wanted.table)
            .join(tree_pages, sa.and_(tree_pages.c.entity_id == entity_id, tree_pages.c.tree_digest == wanted.value))
            .outerjoin(chunks, its_chunk)
            .outerjoin(packs, sa.and_(packs.c.id == chunks.c.pack_id, is_live()))
            .order_by(tree_pages.c.tree_digest, tree_pages.c.seq)
            .execution_options(yield_per=_PAGES_AT_ONCE)
        )
        async with self._database.read() as connection, connection.stream(query) as rows:
            async for row in rows:
                yield PageCheck(row[0], row[1], row[2], row[3], row[4], bool(row[5]))

    async def pins(self, entity_id: int, after: bytes, limit: int) -> list[PinCheck]:
        """Return up to `limit` pins that hold, by version, after one."""
        return await self._pins(entity_id, pins.c.version_uid > after, limit)

    async def pin(self, entity_id: int, version_uid: bytes) -> PinCheck | None:
        """Return one pin, if it holds."""
        rows = await self._pins(entity_id, pins.c.version_uid == version_uid, 1)
        return rows[0] if rows else None

    async def is_pinned(self, entity_id: int, tree_digest: bytes) -> bool:
        """Tell whether a pin holds a tree."""
        query = sa.select(pins.c.version_uid).where(
            pins.c.entity_id == entity_id, pins.c.tree_digest == tree_digest, pins.c.state == PinState.HELD.value
        )
        return bool(await self._rows(query.limit(1)))

    async def odd_uploads(self, entity_id: int) -> list[str]:
        """Return the first uploads that are complete and have no digest."""
        query = sa.select(uploads.c.upload_id).where(
            uploads.c.entity_id == entity_id,
            uploads.c.state == UploadState.COMPLETE.value,
            uploads.c.digest.is_(None),
        )
        return [row[0] for row in await self._rows(query.order_by(uploads.c.upload_id).limit(100))]

    async def usage(self, entity_id: int) -> tuple[int, int]:
        """Return what an entity stores as it is counted, and as it really is. One statement, so one moment."""
        of_chunks = (
            sa.select(sa.func.coalesce(sa.func.sum(RECORD_SPAN), 0))
            .join_from(chunks, packs, packs.c.id == chunks.c.pack_id)
            .where(chunks.c.entity_id == entity_id, is_live())
            .scalar_subquery()
        )
        of_recipes = (
            sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(recipe_parts.c.refs)), 0))
            .where(recipe_parts.c.entity_id == entity_id)
            .scalar_subquery()
        )
        counted = sa.select(usage.c.stored_bytes).where(usage.c.entity_id == entity_id).scalar_subquery()
        ((stored_bytes, chunk_bytes, recipe_bytes),) = await self._rows(sa.select(counted, of_chunks, of_recipes))
        return stored_bytes or 0, int(chunk_bytes) + int(recipe_bytes)

    async def correct_usage(self, entity_id: int, change: int) -> None:
        """Add to what is counted. Right whatever was stored meanwhile, for that was counted, too."""
        async with self._database.write() as connection:
            await add_usage(connection, self._database, {entity_id: change})

    async def packs(self, after: bytes, only: str, limit: int) -> list[PackCheck]:
        """Return up to `limit` packs whose content counts, by id, after one."""
        query = self._live_packs(only).where(packs.c.id > after).order_by(packs.c.id).limit(limit)
        return [_pack(row) for row in await self._rows(query)]

    async def pack(self, pack: UUID) -> PackCheck | None:
        """Return one pack, if its content counts."""
        rows = await self._rows(self._live_packs("").where(packs.c.id == pack.bytes))
        return _pack(rows[0]) if rows else None

    async def known_packs(self, ids: Collection[UUID]) -> set[UUID]:
        """Return which packs have a row, of whatever state."""
        wanted = byte_table(self._database.dialect, [pack.bytes for pack in ids], ID_BYTES)
        query = sa.select(packs.c.id).join_from(wanted.table, packs, packs.c.id == wanted.value)
        return {UUID(bytes=row[0]) for row in await self._rows(query)}

    async def records(self, pack: UUID) -> list[PackedRecord]:
        """Return every record of a pack that has a row: as many as a pack has chunks and pages."""
        query = sa.select(
            chunks.c.record_offset, chunks.c.digest, chunks.c.kind, chunks.c.stored_bytes, chunks.c.raw_bytes
        ).where(chunks.c.pack_id == pack.bytes)
        return [PackedRecord(*row) for row in await self._rows(query.order_by(chunks.c.record_offset))]

    async def bytes_in_packs(self, only: str) -> int:
        """Return how many bytes the packs have whose content counts."""
        some = self._live_packs(only).subquery()
        ((size_bytes,),) = await self._rows(sa.select(sa.func.coalesce(sa.func.sum(some.c.durable_bytes), 0)))
        return int(size_bytes)

    async def bytes_of_recipes(self, only: str) -> int:
        """Return how many bytes the blobs of several chunks have."""
        query = (
            sa.select(sa.func.coalesce(sa.func.sum(blobs.c.size_bytes), 0))
            .join_from(blobs, entities, entities.c.id == blobs.c.entity_id)
            .where(blobs.c.chunk_count > 1, blobs.c.state.in_([state.value for state in READABLE_STATES]))
        )
        ((size_bytes,),) = await self._rows(query.where(entities.c.name == only) if only else query)
        return int(size_bytes)

    async def damaged_blobs(self, entity_id: int, limit: int) -> list[bytes]:
        """Return the first blobs of which a part was lost, up to `limit`."""
        query = sa.select(blobs.c.digest).where(
            blobs.c.entity_id == entity_id,
            # As the index on them has it: a parameter would not be seen to be its condition.
            blobs.c.state == sa.literal_column(f"'{ContentState.DAMAGED.value}'"),
        )
        return [row[0] for row in await self._rows(query.order_by(blobs.c.digest).limit(limit))]

    async def damaged_of(self, entity_id: int, digests: Collection[bytes]) -> set[bytes]:
        """Return which of these blobs lost a part."""
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        query = (
            sa.select(blobs.c.digest)
            .join_from(wanted.table, blobs, sa.and_(blobs.c.entity_id == entity_id, blobs.c.digest == wanted.value))
            .where(blobs.c.state == ContentState.DAMAGED.value)
        )
        return {row[0] for row in await self._rows(query)}

    async def _blobs(self, entity_id: int, which: sa.ColumnElement[bool], limit: int) -> list[BlobCheck]:
        its_chunk = sa.and_(
            chunks.c.entity_id == entity_id, chunks.c.digest == blobs.c.digest, blobs.c.chunk_count == 1
        )
        query = (
            sa.select(
                blobs.c.digest,
                blobs.c.size_bytes,
                blobs.c.chunk_count,
                blobs.c.state,
                blobs.c.generation,
                blobs.c.condemned_at_ms.is_not(None),
                sa.case((packs.c.id.is_not(None), chunks.c.raw_bytes)),
            )
            .outerjoin(chunks, its_chunk)
            .outerjoin(packs, sa.and_(packs.c.id == chunks.c.pack_id, is_live()))
            .where(blobs.c.entity_id == entity_id, which)
            .order_by(blobs.c.digest)
            .limit(limit)
        )
        return [BlobCheck(*row) for row in await self._rows(query)]

    async def _trees(self, entity_id: int, which: sa.ColumnElement[bool], limit: int) -> list[TreeCheck]:
        query = sa.select(
            trees.c.digest,
            trees.c.file_count,
            trees.c.reference_count,
            trees.c.size_bytes,
            trees.c.page_count,
            trees.c.state,
            trees.c.generation,
            trees.c.condemned_at_ms.is_not(None),
        ).where(trees.c.entity_id == entity_id, which)
        return [TreeCheck(*row) for row in await self._rows(query.order_by(trees.c.digest).limit(limit))]

    async def _pins(self, entity_id: int, which: sa.ColumnElement[bool], limit: int) -> list[PinCheck]:
        its_tree = sa.and_(trees.c.entity_id == entity_id, trees.c.digest == pins.c.tree_digest)
        query = (
            sa.select(pins.c.version_uid, pins.c.tree_digest, trees.c.state)
            .outerjoin(trees, its_tree)
            .where(pins.c.entity_id == entity_id, pins.c.state == PinState.HELD.value, which)
        )
        return [PinCheck(*row) for row in await self._rows(query.order_by(pins.c.version_uid).limit(limit))]

    def _live_packs(self, only: str) -> sa.Select[Any]:
        query = (
            sa.select(packs.c.id, entities.c.name, packs.c.pack_class, packs.c.state, packs.c.durable_bytes)
            .join_from(packs, entities, entities.c.id == packs.c.entity_id)
            .where(is_live())
        )
        return query.where(entities.c.name == only) if only else query

    async def _rows(self, query: sa.Select[Any]) -> Sequence[Any]:
        async with self._database.read() as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
        return rows


def _pack(row: Any) -> PackCheck:
    return PackCheck(UUID(bytes=row[0]), row[1], row[2], row[3] == PackState.SEALED.value, row[4])
