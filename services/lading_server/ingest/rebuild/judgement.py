"""Whether each blob and tree has everything that it needs, and what entities store: from the rows alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.rows import unpack_refs
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ContentState,
    blobs,
    chunks,
    packs,
    recipe_parts,
    tree_pages,
    trees,
    usage,
)
from lading_server.ingest.index.sql import ByteParameter, byte_table
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.index.usage import count_anew
from lading_server.ingest.rebuild.report import Findings, Report

# Rows looked at in one query. A part of a recipe has 1,024 references.
_BLOBS, _PARTS, _TREES = 8192, 32, 500
_JUDGED = (ContentState.LIVE.value, ContentState.DAMAGED.value)


class _Verdict(NamedTuple):
    digest: bytes
    is_whole: bool
    state: str


class Judgement:
    """Corrects the states of blobs and trees, live or damaged, by what lies in live packs."""

    def __init__(self, index: ContentIndex, report: Report) -> None:
        self._database = index.database
        self._report = report
        self._wanted = ByteParameter(index.database.dialect, DIGEST_BYTES)
        here = sa.and_(chunks.c.entity_id == sa.bindparam("entity"), chunks.c.digest == self._wanted.value)
        self._present = (
            sa.select(chunks.c.digest, chunks.c.raw_bytes)
            .join_from(self._wanted.table, chunks, here)
            .join(packs, packs.c.id == chunks.c.pack_id)
            .where(is_live())
        )

    async def run(self, entity_ids: Collection[int]) -> None:
        """Judge everything of these entities."""
        for entity_id in sorted(entity_ids):
            async for verdicts in self._single_chunks(entity_id):
                await self._apply(blobs, entity_id, verdicts, self._report.damaged_blobs)
            async for verdicts in self._recipes(entity_id):
                await self._apply(blobs, entity_id, verdicts, self._report.damaged_blobs)
            async for verdicts in self._trees(entity_id):
                await self._apply(trees, entity_id, verdicts, self._report.damaged_trees)
        await self._count_usage()

    async def _single_chunks(self, entity_id: int) -> AsyncIterator[list[_Verdict]]:
        after = b""
        while True:
            query = (
                sa.select(blobs.c.digest, blobs.c.size_bytes, blobs.c.state)
                .where(blobs.c.entity_id == entity_id, blobs.c.digest > after, blobs.c.state.in_(_JUDGED))
                .where(blobs.c.chunk_count == 1)
                .order_by(blobs.c.digest)
                .limit(_BLOBS)
            )
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
                present = await self._lengths(connection, entity_id, [row.digest for row in rows])
            if not rows:
                return
            after = rows[-1].digest
            yield [_Verdict(row.digest, present.get(row.digest) == row.size_bytes, row.state) for row in rows]

    async def _recipes(self, entity_id: int) -> AsyncIterator[list[_Verdict]]:
        """Judge recipes as their parts come, in order: a long one takes several readings."""
        blob: Any = None
        end_bytes, is_whole = 0, True
        after = (b"", -1)
        while True:
            async with self._database.read() as connection:
                rows = (await connection.execute(_parts_after(entity_id, *after))).all()
                refs = [list(unpack_refs(row.start_bytes, row.refs)) for row in rows]
                digests = {ref.digest for some in refs for ref in some}
                present = await self._lengths(connection, entity_id, list(digests))
            verdicts: list[_Verdict] = []
            for row, some in zip(rows, refs, strict=True):
                if blob is None or row.blob_digest != blob.blob_digest:
                    if blob is not None:
                        verdicts.append(
                            _Verdict(blob.blob_digest, is_whole and end_bytes == blob.size_bytes, blob.state)
                        )
                    blob, end_bytes, is_whole = row, 0, True
                is_whole = is_whole and row.start_bytes == end_bytes
                is_whole = is_whole and all(present.get(ref.digest) == ref.size_bytes for ref in some)
                end_bytes = row.start_bytes + sum(ref.size_bytes for ref in some)
            if not rows and blob is not None:
                verdicts.append(_Verdict(blob.blob_digest, is_whole and end_bytes == blob.size_bytes, blob.state))
            yield verdicts
            if not rows:
                return
            after = (rows[-1].blob_digest, rows[-1].start_bytes)

    async def _trees(self, entity_id: int) -> AsyncIterator[list[_Verdict]]:
        after = b""
        page = sa.and_(chunks.c.entity_id == tree_pages.c.entity_id, chunks.c.digest == tree_pages.c.page_digest)
        in_live_pack = sa.select(packs.c.id).where(packs.c.id == chunks.c.pack_id, is_live()).exists()
        while True:
            query = (
                sa.select(trees.c.digest, trees.c.state)
                .where(trees.c.entity_id == entity_id, trees.c.digest > after, trees.c.state.in_(_JUDGED))
                .order_by(trees.c.digest)
                .limit(_TREES)
            )
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
                if not rows:
                    return
                wanted = byte_table(self._database.dialect, [row.digest for row in rows], DIGEST_BYTES)
                mine = sa.and_(tree_pages.c.entity_id == entity_id, tree_pages.c.tree_digest == wanted.value)
                lacking = (
                    sa.select(tree_pages.c.tree_digest)
                    .distinct()
                    .select_from(wanted.table)
                    .join(tree_pages, mine)
                    .outerjoin(chunks, sa.and_(page, in_live_pack))
                    .where(chunks.c.digest.is_(None))
                )
                bad = set((await connection.scalars(lacking)).all())
            after = rows[-1].digest
            yield [_Verdict(row.digest, row.digest not in bad, row.state) for row in rows]

    async def _lengths(self, connection: AsyncConnection, entity_id: int, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Return how long the chunks are that are there."""
        found: dict[bytes, int] = {}
        for at in range(0, len(digests), _BLOBS):
            wanted = {"entity": entity_id, **self._wanted.of(digests[at : at + _BLOBS])}
            rows = await connection.execute(self._present, wanted)
            found.update((digest, raw_bytes) for digest, raw_bytes in rows)
        return found

    async def _apply(self, table: sa.Table, entity_id: int, verdicts: Sequence[_Verdict], damaged: Findings) -> None:
        for verdict in verdicts:
            if not verdict.is_whole:
                damaged.add(f"b3:{verdict.digest.hex()}")
        rows = [
            {"of": verdict.digest, "becomes": _state(verdict)}
            for verdict in verdicts
            if verdict.state != _state(verdict)
        ]
        if rows:
            change = (
                sa.update(table)
                .where(table.c.entity_id == entity_id, table.c.digest == sa.bindparam("of"))
                .values(state=sa.bindparam("becomes"), generation=table.c.generation + 1)
            )
            async with self._database.write() as connection:
                await connection.execute(change, rows)

    async def _count_usage(self) -> None:
        """Write down what each entity stores, from the rows that are there now."""
        async with self._database.write() as connection:
            counted = await count_anew(connection, is_live())
            await connection.execute(sa.delete(usage))
            if counted:
                rows = [{"entity_id": entity_id, "stored_bytes": counted[entity_id]} for entity_id in sorted(counted)]
                await connection.execute(sa.insert(usage), rows)


def _state(verdict: _Verdict) -> str:
    return ContentState.LIVE.value if verdict.is_whole else ContentState.DAMAGED.value


def _parts_after(entity_id: int, blob_digest: bytes, start_bytes: int) -> sa.Select[Any]:
    """Return the parts that come next, of blobs that are to be judged."""
    is_mine = sa.and_(
        recipe_parts.c.entity_id == entity_id,
        sa.tuple_(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes) > sa.tuple_(blob_digest, start_bytes),
    )
    return (
        sa.select(
            recipe_parts.c.blob_digest,
            recipe_parts.c.start_bytes,
            recipe_parts.c.refs,
            blobs.c.size_bytes,
            blobs.c.state,
        )
        .join(
            blobs,
            sa.and_(blobs.c.entity_id == recipe_parts.c.entity_id, blobs.c.digest == recipe_parts.c.blob_digest),
        )
        .where(is_mine, blobs.c.chunk_count > 1, blobs.c.state.in_(_JUDGED))
        .order_by(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes)
        .limit(_PARTS)
    )
