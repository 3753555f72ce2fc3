"""A store with everything in it, and its index in a form that two of them can be compared in."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_format.tree import FileEntry, ReferenceEntry, TreeEntry, sort_key
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings
from lading_server.ingest.component import run_ingest
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.rows import REFS_PER_PART
from lading_server.ingest.index.schema import entities, metadata
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.local import LocalPackStorage
from tests.support.content import put_tree

# What is not in packs: see docs/operations.md.
_NOT_IN_PACKS = {"store", "sessions", "session_packs", "uploads", "upload_chunks", "pins", "maintenance"}
# When a row was made is told by its pack's id, and by the clock otherwise.
_NOT_COMPARED = {"generation", "created_at_ms", "writer_epoch", "entity_id"}

Content = dict[tuple[str, bytes], dict[str, bytes]]


async def fill(data: Path, url: str, *, seed: int, entity_names: Sequence[str] = ("acme", "globex")) -> Content:
    """Make a store of small packs: large and small files, references, shared content. Returns what each tree has."""
    rng = random.Random(seed)
    content: Content = {}
    for _ in range(2):
        # Twice, for the packs of the first round are sealed by the end of it.
        index = await ContentIndex.open(url)
        storage = LocalPackStorage(data)
        try:
            settings = Settings(min_free_bytes=0, pack_target_bytes=1 << 20)
            async with run_ingest(settings, index, storage, Metrics()) as ingest:
                for entity in entity_names:
                    await _fill_entity(ingest, entity, rng, content)
        finally:
            await index.close()
            storage.close()
    return content


async def _fill_entity(ingest: Ingest, entity: str, rng: random.Random, content: Content) -> None:
    shared = [rng.randbytes(50_000) for _ in range(3)]
    files: dict[str, list[bytes]] = {"empty": [], "same/in/all": [b"the same everywhere"]}
    files |= {f"small/{number:04}": [rng.randbytes(rng.choice([1, 100, 5000]))] for number in range(120)}
    files |= {f"large/{number}": [*shared, rng.randbytes(300_000), shared[0]] for number in range(4)}
    tiny = [rng.randbytes(8) for _ in range(50)]
    # Of two parts and a bit.
    files["many chunks"] = [rng.choice(tiny) for _ in range(2 * REFS_PER_PART + 10)]
    tree = await put_tree(ingest, files, entity)
    content[entity, tree] = {path: b"".join(parts) for path, parts in files.items()}
    # A second tree, of the same blobs and pages but for one, with a reference and an executable file.
    entries: list[TreeEntry] = [
        FileEntry(path, blake3_digest(b"".join(parts)), sum(map(len, parts)), path.endswith("7"))
        for path, parts in files.items()
    ]
    entries.append(ReferenceEntry("elsewhere", "s3://bucket/key", "etag", 7))
    session = await ingest.open_session(entity)
    async with ingest.tree_writer(entity, session, 0) as writer:
        await writer.add(sorted(entries, key=lambda entry: sort_key(entry.path)))
        totals, _ = await writer.finish(None)
    content[entity, totals.digest] = content[entity, tree]


async def rows_of(url: str) -> dict[str, list[Any]]:
    """Return all rows that a rebuild makes, with names for entities, in an order of their own."""
    index = await ContentIndex.open(url)
    try:
        async with index.database.read() as connection:
            names: Mapping[int, str] = {row.id: row.name for row in await connection.execute(sa.select(entities))}
            found: dict[str, list[Any]] = {}
            for table in metadata.sorted_tables:
                if table.name in _NOT_IN_PACKS | {"entities"}:
                    continue
                found[table.name] = sorted(
                    repr(
                        (
                            names[row["entity_id"]],
                            [(key, row[key]) for key in table.c.keys() if key not in _NOT_COMPARED],  # noqa: SIM118
                        )
                    )
                    for row in (await connection.execute(sa.select(table))).mappings()
                )
            return found | {"entities": sorted(names.values())}
    finally:
        await index.close()


async def check_content(data: Path, url: str, content: Content) -> None:
    """Read every file of every tree back through a fresh ingest, byte for byte."""
    index = await ContentIndex.open(url)
    storage = LocalPackStorage(data)
    try:
        async with run_ingest(Settings(min_free_bytes=0), index, storage, Metrics()) as ingest:
            for (entity, tree), files in content.items():
                assert (await index.trees.get(entity, tree)).file_count == len(files)
                for data_of in {blake3_digest(one): one for one in files.values()}.values():
                    assert await read_blob(ingest, entity, data_of) == data_of
    finally:
        await index.close()
        storage.close()


async def read_blob(ingest: Ingest, entity: str, expected: bytes) -> bytes:
    """Read a blob by the digest of what it should hold."""
    digest = blake3_digest(expected)
    read = b""
    async for refs in ingest.index.blobs.recipe(entity, digest, 0, len(expected)):
        located = await ingest.index.chunks.locate(entity, [refs.digest])
        place = located[refs.digest]
        read += ingest.storage.read(place.pack, place.offset + 64, place.stored_bytes)
    return read
