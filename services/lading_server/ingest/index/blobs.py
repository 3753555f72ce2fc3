"""Committed blobs and their recipes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.common.errors import BlobNotFound
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.rows import BlobRow, BlobSlice, ChunkRef, SliceRefs, unpack_refs
from lading_server.ingest.index.schema import DIGEST_BYTES, READABLE_STATES, ContentState, blobs, recipe_parts
from lading_server.ingest.index.sql import ByteParameter, is_one_of

# Rows of a recipe read at once: up to 288 KiB, or 4 GiB of a file.
_PARTS = 8


class BlobIndex:
    """Questions about blobs. One that is condemned is not there; of one that is damaged, what is left can be read."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def stat(self, entity: str, digests: Sequence[bytes]) -> dict[bytes, BlobRow]:
        """Return the blobs that are there and whole; the others are left out."""
        return await self._rows(entity, digests, (ContentState.LIVE,))

    async def readable(self, entity: str, digests: Sequence[bytes]) -> dict[bytes, BlobRow]:
        """Return the blobs that can be read, those of which a part was lost too; the others are left out."""
        return await self._rows(entity, digests, READABLE_STATES)

    async def _rows(
        self, entity: str, digests: Sequence[bytes], states: Sequence[ContentState]
    ) -> dict[bytes, BlobRow]:
        entity_id = await self._entities.find(entity)
        if entity_id is None or not digests:
            return {}
        wanted, query = _finding(self._database.dialect, tuple(states))
        rows = await self._database.fetch(query, {"of_entity": entity_id, **wanted.of(digests)})
        return {row[0]: BlobRow(*row) for row in rows}

    async def recipe(self, entity: str, digest: bytes, start_bytes: int, end_bytes: int) -> AsyncIterator[ChunkRef]:
        """Yield the chunks that have a part of the range from `start_bytes` up to but not including `end_bytes`.

        Only a few rows are in memory at a time, whatever the size of the blob.

        Raises:
            BlobNotFound: There is no such blob, or it was deleted or stored anew meanwhile.
        """
        row = (await self.readable(entity, [digest])).get(digest)
        if row is None:
            raise _not_found(digest, "there is no blob b3:{} here; check the digest and the entity")
        async for refs in self._slice(entity, row, start_bytes, end_bytes):
            for ref in refs:
                yield ref

    async def recipes(self, entity: str, slices: Sequence[BlobSlice]) -> AsyncIterator[SliceRefs]:
        """Yield the chunks of many ranges, in the order of the ranges; a long one comes in several pieces.

        Blobs of one chunk cost one query for all of them, others one each. A range without chunks yields nothing.
        """
        rows = await self.readable(entity, list({piece.digest for piece in slices}))
        for index, piece in enumerate(slices):
            row = rows.get(piece.digest)
            if row is None:
                yield SliceRefs(index, None)
                continue
            async for refs in self._slice(entity, row, piece.start_bytes, piece.end_bytes):
                yield SliceRefs(index, refs)

    async def _slice(
        self, entity: str, row: BlobRow, start_bytes: int, end_bytes: int
    ) -> AsyncIterator[list[ChunkRef]]:
        end_bytes = min(end_bytes, row.size_bytes)
        if start_bytes >= end_bytes:
            return
        if row.chunk_count == 1:
            yield [ChunkRef(0, row.digest, row.size_bytes)]
            return
        at = start_bytes
        while at < end_bytes:
            refs = await self._parts(entity, row.digest, at, end_bytes)
            # What comes next must begin where the last chunk ended. If not, other rows took the place of these.
            if not refs or refs[0].offset_bytes > at or (at > start_bytes and refs[0].offset_bytes != at):
                raise _not_found(row.digest, "blob b3:{} was deleted or stored anew while it was read; read it again")
            yield refs
            at = refs[-1].offset_bytes + refs[-1].size_bytes

    async def _parts(self, entity: str, digest: bytes, start_bytes: int, end_bytes: int) -> list[ChunkRef]:
        entity_id = await self._entities.find(entity)
        mine = sa.and_(recipe_parts.c.entity_id == entity_id, recipe_parts.c.blob_digest == digest)
        first = sa.select(sa.func.max(recipe_parts.c.start_bytes)).where(
            mine, recipe_parts.c.start_bytes <= start_bytes
        )
        query = (
            sa.select(recipe_parts.c.start_bytes, recipe_parts.c.refs)
            .where(mine, recipe_parts.c.start_bytes >= first.scalar_subquery(), recipe_parts.c.start_bytes < end_bytes)
            .order_by(recipe_parts.c.start_bytes)
            .limit(_PARTS)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            ref
            for part_start_bytes, refs in rows
            for ref in unpack_refs(part_start_bytes, refs)
            if ref.offset_bytes + ref.size_bytes > start_bytes and ref.offset_bytes < end_bytes
        ]


@cache
def _finding(dialect: str, states: tuple[ContentState, ...]) -> tuple[ByteParameter, sa.Select[Any]]:
    """Return what finds blobs by digest; made once for each dialect."""
    wanted = ByteParameter(dialect, DIGEST_BYTES)
    query = (
        sa.select(blobs.c.digest, blobs.c.size_bytes, blobs.c.chunk_count)
        .select_from(wanted.table)
        .join(blobs, sa.and_(blobs.c.entity_id == sa.bindparam("of_entity"), blobs.c.digest == wanted.value))
        .where(is_one_of(blobs.c.state, (state.value for state in states)))
    )
    return wanted, query


def _not_found(digest: bytes, message: str) -> BlobNotFound:
    return BlobNotFound(message.format(digest.hex()), digest=f"b3:{digest.hex()}")
