"""Reads go on when a compaction moves what they looked up and deletes the old pack, on each database."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_server.common.errors import CorruptRecord
from lading_server.common.ids import uuid7
from lading_server.ingest.domain.content import BlobRange
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.recipes import BlobHasher, ChunkSpan
from lading_server.ingest.index.schema import chunks, packs
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackClass
from lading_server.ingest.packs.writer import Location, NewRecord, PackWriter
from tests.support.check import checked, place_of, seal
from tests.support.content import opened_ingest, put_tree
from tests.support.index import DATABASES

_RANDOM = random.Random(7)
# Three messages of ReadBlobs.
LARGE = tuple(_RANDOM.randbytes(1 << 20) for _ in range(8))
FILES = {"large.bin": LARGE, "small.txt": (b"small",)}
LARGE_BLOB = blake3_digest(b"".join(LARGE))


@pytest.fixture(params=DATABASES)
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with opened_ingest(request.param, tmp_path) as opened:
        yield opened


async def move(ingest: Ingest, old: UUID) -> UUID:
    """Do what a compaction does: copy all that lives, move the rows in one transaction, delete the old pack."""
    await seal(ingest)
    rows = await ingest.index.checks.records(old)
    pack = await ingest.index.checks.pack(old)
    assert pack is not None
    new = uuid7()
    writer = PackWriter.create(
        ingest.storage,
        store_id=UUID(int=1),
        writer_epoch=1,
        pack_class=PackClass(pack.pack_class),
        entity=pack.entity,
        pack=new,
    )
    places = [Location(old, row.offset, row.stored_bytes, row.raw_bytes) for row in rows]
    payloads = read_payloads(ingest.storage, places, [row.digest for row in rows])
    moved = writer.append(
        [
            NewRecord(RecordType(row.kind), row.digest, payload, None)
            for row, payload in zip(rows, payloads, strict=True)
        ]
    )
    total_bytes = writer.seal()
    await ingest.index.packs.add(new, pack.pack_class, pack.entity, 1)
    await ingest.index.packs.mark_sealed(new, total_bytes)
    async with ingest.index.database.write() as connection:
        for row, place in zip(rows, moved, strict=True):
            where = sa.and_(chunks.c.digest == row.digest, chunks.c.pack_id == old.bytes)
            values = {"pack_id": new.bytes, "record_offset": place.offset}
            assert (await connection.execute(sa.update(chunks).where(where).values(values))).rowcount == 1
        await connection.execute(sa.delete(packs).where(packs.c.id == old.bytes))
    ingest.storage.delete(old)
    return new


async def places_of(ingest: Ingest, digests: Collection[bytes]) -> dict[bytes, Location]:
    return await ingest.index.chunks.locate("acme", list(digests))


async def test_a_long_read_survives_a_pack_that_moves_under_it_again_and_again(ingest: Ingest) -> None:
    await put_tree(ingest, FILES)
    old = (await place_of(ingest, blake3_digest(LARGE[0]))).pack
    read = bytearray()
    async for pieces in ingest.content.read("acme", [BlobRange(LARGE_BLOB, 0, 0)]):
        assert [piece.error for piece in pieces] == [None] * len(pieces)
        read += b"".join(piece.data for piece in pieces)
        old = await move(ingest, old)
    assert bytes(read) == b"".join(LARGE)
    assert (await checked(ingest)).told == []


async def test_a_recipe_is_hashed_across_a_move(ingest: Ingest) -> None:
    await put_tree(ingest, FILES)
    spans = [ChunkSpan(blake3_digest(part), len(part)) for part in LARGE]
    stale = await ingest.spans.locate("acme", spans)
    await move(ingest, stale[spans[0].digest].pack)
    hasher = BlobHasher()
    await ingest.spans.hash_into("acme", hasher, spans, stale)
    assert hasher.digest() == LARGE_BLOB


async def test_a_page_and_a_pin_survive_a_move(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = await put_tree(ingest, FILES)
    page = (await ingest.index.trees.pages("acme", tree, None, 1))[0].page_digest
    locate = type(ingest.index.chunks).locate
    moves = 0

    async def locate_and_move(self: object, entity: str, digests: list[bytes]) -> dict[bytes, Location]:
        nonlocal moves
        found = await locate(ingest.index.chunks, entity, digests)
        if moves < 3:
            moves += 1
            await move(ingest, found[page].pack)
        return found

    monkeypatch.setattr(type(ingest.index.chunks), "locate", locate_and_move)
    assert (await ingest.trees.find("acme", tree, "small.txt")).path == "small.txt"
    assert moves == 3
    moves = 1
    assert (await ingest.pins.acquire("acme", os.urandom(16), tree)).file_count == 2
    assert moves == 3


async def test_what_moves_in_a_circle_ends_with_an_error_and_is_not_lost(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = await put_tree(ingest, FILES)
    page = (await ingest.index.trees.pages("acme", tree, None, 1))[0].page_digest
    locate = type(ingest.index.chunks).locate

    async def locate_and_move(self: object, entity: str, digests: list[bytes]) -> dict[bytes, Location]:
        found = await locate(ingest.index.chunks, entity, digests)
        await move(ingest, found[page].pack)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(type(ingest.index.chunks), "locate", locate_and_move)
        with pytest.raises(CorruptRecord):
            await ingest.trees.find("acme", tree, "small.txt")
    assert (await ingest.trees.find("acme", tree, "small.txt")).path == "small.txt"


async def test_a_pack_that_is_gone_and_did_not_move_is_told_and_marked(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    await seal(ingest)
    place = await place_of(ingest, blake3_digest(b"small"))
    ingest.storage.delete(place.pack)
    (pieces,) = [pieces async for pieces in ingest.content.read("acme", [BlobRange(blake3_digest(b"small"), 0, 0)])]
    assert isinstance(pieces[0].error, CorruptRecord)
    while await places_of(ingest, [blake3_digest(b"small")]):
        pass
    assert (await ingest.trees.find("acme", tree, "small.txt")).path == "small.txt"
