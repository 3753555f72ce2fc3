"""The writes of one group commit. Either all of them are made, or it says which batches cannot be.

Rows are locked in one order, by table and within a table by key, and every other transaction keeps to it: pins,
uploads, chunks, packs, sessions, blobs, trees, usage. So two servers on one PostgreSQL do not wait for each other in a
circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.direct import leave, rows_of
from lading_server.common.errors import OffsetMismatch, UploadTakenOver
from lading_server.ingest.index.charges import Charges, Claim
from lading_server.ingest.index.packs import refer_to
from lading_server.ingest.index.rows import IndexBatch, PacksGone, UploadCompletion, UploadProgress
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    PackState,
    UploadState,
    chunks,
    packs,
    recipe_parts,
    tree_pages,
    upload_chunks,
    uploads,
)
from lading_server.ingest.index.sessions import Lease, hold
from lading_server.ingest.index.sql import ByteParameter, byte_table
from lading_server.ingest.index.statements import GroupStatements
from lading_server.ingest.index.usage import add_usage
from lading_server.ingest.packs.format import record_span

# Made once: to make a statement costs more than to run it.
_GROW = (
    sa.update(packs)
    .where(
        packs.c.id == sa.bindparam("pack"),
        packs.c.state == PackState.OPEN.value,
        packs.c.durable_bytes < sa.bindparam("bytes"),
    )
    .values(durable_bytes=sa.bindparam("bytes"))
)


class BatchesRejected(Exception):
    """Some batches cannot be written, by their numbers. The transaction must be undone; the others can go on."""

    def __init__(self, reasons: Mapping[int, Exception]) -> None:
        super().__init__(f"{len(reasons)} batches of the group cannot be written")
        self.reasons = reasons


class LostRace(Exception):
    """Another server changed what was read a moment ago. The transaction must be undone and run again."""


class Item(NamedTuple):
    """A batch, its number in the group, and its entity's."""

    number: int
    entity_id: int
    batch: IndexBatch


class _Key(NamedTuple):
    """What a chunk, blob or tree is found by."""

    entity_id: int
    digest: bytes


class GroupWrite:
    """One transaction of a group commit."""

    def __init__(
        self,
        connection: AsyncConnection,
        database: Database,
        statements: GroupStatements,
        items: Collection[Item],
        now_ms: int,
    ) -> None:
        self._connection = connection
        self._database = database
        self._statements = statements
        self._items = items
        self._now_ms = now_ms
        self._charges = Charges()

    async def run(self, durable: Mapping[UUID, int]) -> None:
        """Write everything. `durable`: how many bytes of each pack are safe on disk.

        Raises:
            BatchesRejected, LostRace: Nothing of this may be committed.
        """
        await self._write_uploads()
        kept = await self._write_chunks()
        await self._write_packs(durable, kept)
        await self._write_holds(kept)
        await self._write_blobs()
        await self._write_trees()
        await self._write_usage()

    async def _write_uploads(self) -> None:
        reasons: dict[int, Exception] = {}
        for item in sorted(self._items, key=_upload_order):
            upload = item.batch.upload
            if upload is not None and not await self._advance(item.entity_id, upload):
                reasons[item.number] = await self._why_not(item.entity_id, upload)
        if reasons:
            raise BatchesRejected(reasons)
        rows: list[tuple[object, ...]] = []
        ended: list[dict[str, object]] = []
        for item in self._items:
            upload = item.batch.upload
            if isinstance(upload, UploadProgress):
                rows.append((item.entity_id, upload.upload_id, upload.start_bytes, upload.refs))
            elif upload is not None:
                ended.append({"of_entity": item.entity_id, "of_upload": upload.upload_id})
        await self._statements.upload_chunks.leave(self._connection, rows)
        if ended:
            # The blob has its recipe now; nobody continues from these any more.
            mine = sa.and_(
                upload_chunks.c.entity_id == sa.bindparam("of_entity"),
                upload_chunks.c.upload_id == sa.bindparam("of_upload"),
            )
            await self._connection.execute(sa.delete(upload_chunks).where(mine), ended)

    async def _advance(self, entity_id: int, upload: UploadProgress | UploadCompletion) -> bool:
        """Note an upload's progress or end; False when it is not this stream's to continue, or not from there."""
        mine = sa.and_(uploads.c.entity_id == entity_id, uploads.c.upload_id == upload.upload_id)
        change = (
            sa.update(uploads)
            .where(mine, uploads.c.writer == upload.writer, uploads.c.state == UploadState.OPEN.value)
            .values(new_bytes=upload.new_bytes, updated_at_ms=self._now_ms)
        )
        if isinstance(upload, UploadProgress):
            # A part before this one may have been rejected: then there must be no gap.
            change = change.where(uploads.c.durable_bytes == upload.start_bytes)
            change = change.values(durable_bytes=upload.durable_bytes)
        else:
            change = change.values(state=UploadState.COMPLETE.value, digest=upload.digest)
        return (await self._connection.execute(change)).rowcount == 1

    async def _why_not(self, entity_id: int, upload: UploadProgress | UploadCompletion) -> Exception:
        query = sa.select(uploads.c.durable_bytes).where(
            uploads.c.entity_id == entity_id,
            uploads.c.upload_id == upload.upload_id,
            uploads.c.writer == upload.writer,
            uploads.c.state == UploadState.OPEN.value,
        )
        durable_bytes = await self._connection.scalar(query)
        if durable_bytes is not None and isinstance(upload, UploadProgress):
            return OffsetMismatch(
                f"upload {upload.upload_id!r} has {durable_bytes} durable bytes and not {upload.start_bytes}; "
                "continue from there",
                expected=durable_bytes,
                actual=upload.start_bytes,
            )
        return UploadTakenOver(
            f"another stream continues upload {upload.upload_id!r}, or it was finished or discarded; "
            "GetUpload says how far it is"
        )

    async def _write_chunks(self) -> dict[_Key, bytes]:
        """Return the packs of those chunks that are kept where they lay before."""
        rows = sorted(
            (
                (item.entity_id, row.digest, row.kind, row.location.pack.bytes, *row.location[1:])
                for item in self._items
                for row in item.batch.chunks
            ),
            # By key alone, so that of two rows for one chunk the first of the group wins.
            key=lambda row: row[:2],
        )
        if not rows or await self._statements.chunks.run(self._connection, rows) == len(rows):
            self._charge_chunks(None)
            return {}
        written = {_Key(row[0], row[1]): row[3] for row in rows}
        kept: dict[_Key, bytes] = {}
        places: set[tuple[bytes, int]] = set()
        for entity_id, digests in _by_entity(written).items():
            table = byte_table(self._database.dialect, digests, DIGEST_BYTES)
            query = (
                sa.select(chunks.c.digest, chunks.c.pack_id, chunks.c.record_offset)
                .select_from(table.table)
                .join(chunks, sa.and_(chunks.c.entity_id == entity_id, chunks.c.digest == table.value))
            )
            for digest, pack, offset in (await self._connection.execute(query)).all():
                key = _Key(entity_id, digest)
                places.add((pack, offset))
                if written[key] != pack:
                    kept[key] = pack
        self._charge_chunks(places)
        return kept

    def _charge_chunks(self, places: Collection[tuple[bytes, int]] | None) -> None:
        """Note what the chunks add that lie where they were put: at these places, or all of them.

        A place is written to once, so what lies at the place of a row was put there by that row.
        """
        for item in self._items:
            lengths = (
                row.location.stored_bytes
                for row in item.batch.chunks
                if places is None or (row.location.pack.bytes, row.location.offset) in places
            )
            self._charges.add(item.number, sum(map(record_span, lengths)))

    async def _write_packs(self, durable: Mapping[UUID, int], kept: Mapping[_Key, bytes]) -> None:
        """Note that there are new references to packs, and that more of them is durable."""
        needed = {item.number: _needed_packs(item.batch) for item in self._items}
        wanted = {pack.bytes for packs_ in needed.values() for pack in packs_} | set(kept.values())
        live = await refer_to(self._connection, self._database.dialect, wanted | {pack.bytes for pack in durable})
        reasons: dict[int, Exception] = {}
        for number, packs_ in needed.items():
            gone = frozenset(pack for pack in packs_ if pack.bytes not in live)
            if gone:
                reasons[number] = PacksGone(gone)
        if reasons:
            raise BatchesRejected(reasons)
        if not live.issuperset(kept.values()):
            raise LostRace
        rows = [{"pack": pack.bytes, "bytes": length} for pack, length in sorted(durable.items())]
        if rows:
            await leave(self._connection, _GROW, rows)

    async def _write_holds(self, kept: Mapping[_Key, bytes]) -> None:
        """Hold for each session what its batch stored, found or refers to. A session that lapsed holds nothing."""
        holds: defaultdict[Lease, set[bytes]] = defaultdict(set)
        for item in self._items:
            session = item.batch.session
            if session is None:
                continue
            held = {pack.bytes for pack in _needed_packs(item.batch)}
            if kept:
                keys = (_Key(item.entity_id, row.digest) for row in item.batch.chunks)
                held.update(kept[key] for key in keys if key in kept)
            holds[Lease(item.entity_id, session)] |= held
        await hold(self._connection, self._database, self._now_ms, holds)

    async def _write_blobs(self) -> None:
        new = {_Key(item.entity_id, blob.digest): blob for item in self._items for blob in item.batch.blobs}
        if not new:
            return
        rows = [(*key, blob.size_bytes, blob.chunk_count) for key, blob in sorted(new.items())]
        await self._statements.blobs.leave(self._connection, rows)
        # Two uploaders may have cut one file differently: the recipes must not mix, so the last one counts alone. Rows
        # left over from a blob that is one chunk now are never read.
        parts: dict[_Key, list[tuple[int, bytes, int, bytes]]] = {}
        last: dict[_Key, int] = {}
        for item in self._items:
            own: defaultdict[_Key, list[tuple[int, bytes, int, bytes]]] = defaultdict(list)
            for part in item.batch.recipe_parts:
                own[_Key(item.entity_id, part.blob_digest)].append((item.entity_id, *part))
            parts |= own
            last |= dict.fromkeys(own, item.number)
        for entity_id, digests in _by_entity(parts).items():
            await self._delete_recipes(entity_id, digests)
        for key, some in parts.items():
            self._charges.add(last[key], sum(len(refs) for *_, refs in some))
        rows_of_parts = [row for _, some in sorted(parts.items()) for row in some]
        await self._statements.recipe_parts.leave(self._connection, rows_of_parts)

    async def _write_trees(self) -> None:
        new = {_Key(item.entity_id, tree.digest): tree for item in self._items for tree in item.batch.trees}
        if not new:
            return
        rows = [
            (*key, tree.file_count, tree.reference_count, tree.size_bytes, len(tree.pages), self._now_ms)
            for key, tree in sorted(new.items())
        ]
        await self._statements.trees.leave(self._connection, rows)
        # A newer program may cut a tree into other pages: they must not mix either.
        for entity_id, digests in _by_entity(new).items():
            await self._delete_pages(entity_id, digests)
        pages = [(*key, *page) for key, tree in sorted(new.items()) for page in tree.pages]
        await self._statements.tree_pages.leave(self._connection, pages)

    async def _write_usage(self) -> None:
        """Count what was added, and reject what is too much."""
        claims = [Claim(item.number, item.entity_id, item.batch.quota_bytes) for item in self._items]
        changes = self._charges.changes(claims)
        after = await add_usage(self._connection, self._database, changes)
        # From here on no other transaction adds anything to these entities.
        before = {entity_id: after[entity_id] - changes[entity_id] for entity_id in after}
        reasons = self._charges.too_much(claims, before)
        if reasons:
            raise BatchesRejected(reasons)

    async def _delete_recipes(self, entity_id: int, digests: Collection[bytes]) -> None:
        wanted, delete = _deleting_recipes(self._database.dialect)
        parameters = {"of_entity": entity_id, **wanted.of(digests)}
        gone = await rows_of(self._connection, delete, parameters)
        self._charges.free(entity_id, sum([row.size_bytes for row in gone]))

    async def _delete_pages(self, entity_id: int, digests: Collection[bytes]) -> None:
        wanted, delete = _deleting_pages(self._database.dialect)
        await leave(self._connection, delete, [{"of_entity": entity_id, **wanted.of(digests)}])


@cache
def _deleting_recipes(dialect: str) -> tuple[ByteParameter, Any]:
    """Return what deletes the recipes of blobs, and tells the bytes of each part; made once for each dialect."""
    wanted = ByteParameter(dialect, DIGEST_BYTES)
    of_these = recipe_parts.c.blob_digest.in_(sa.select(wanted.value).select_from(wanted.table))
    delete = sa.delete(recipe_parts).where(recipe_parts.c.entity_id == sa.bindparam("of_entity"), of_these)
    return wanted, delete.returning(sa.func.length(recipe_parts.c.refs).label("size_bytes"))


@cache
def _deleting_pages(dialect: str) -> tuple[ByteParameter, sa.Delete]:
    """Return what deletes the pages of trees; made once for each dialect."""
    wanted = ByteParameter(dialect, DIGEST_BYTES)
    of_these = tree_pages.c.tree_digest.in_(sa.select(wanted.value).select_from(wanted.table))
    return wanted, sa.delete(tree_pages).where(tree_pages.c.entity_id == sa.bindparam("of_entity"), of_these)


def _upload_order(item: Item) -> tuple[int, str]:
    # Stable: the parts of one upload stay in the order in which they came.
    return item.entity_id, item.batch.upload.upload_id if item.batch.upload is not None else ""


def _needed_packs(batch: IndexBatch) -> set[UUID]:
    """Return the packs that must be live for the batch to be true: where it wrote, and what it refers to."""
    return {row.location.pack for row in batch.chunks} | set(batch.required_packs)


def _by_entity(keys: Iterable[_Key]) -> dict[int, list[bytes]]:
    digests: defaultdict[int, list[bytes]] = defaultdict(list)
    for entity_id, digest in keys:
        digests[entity_id].append(digest)
    return dict(digests)
