"""A store from which all garbage went: whether it has what is kept, and nothing else. Looked at while nothing runs."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from uuid import UUID

from lading_server.ingest.domain.recipes import recipe_record_place
from lading_server.ingest.domain.tree_pages import tree_record_digest
from lading_server.ingest.index.rows import unpack_refs
from lading_server.ingest.index.schema import ContentState, PackState
from lading_server.ingest.packs.format import RecordType, record_span, sealed_bytes
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.reader import read_trailer, scan_records
from lading_server.ingest.packs.storage import PackClass
from tests.support import pieces

# Where so much of a pack is dead, a collection compacts it.
_DEAD_PART = 0.25


def leftovers(data: Path, trees: Mapping[str, Iterable[int]], *, entity: str = "default") -> list[str]:
    """Return what there is besides what is kept, and what is not there; in words, and empty where all is well.

    Args:
        data: The data directory of ingest, all of whose packs are sealed.
        trees: Digests of the trees that are kept, and the pieces of each.
        entity: The one that everything belongs to.
    """
    with closing(sqlite3.connect(f"file:{data / 'ingest.db'}?mode=ro", uri=True)) as database:
        kept_trees = {bytes.fromhex(tree.removeprefix("b3:")) for tree in trees}
        kept_blobs = {pieces.digest(piece) for some in trees.values() for piece in some}
        return [
            *_other_rows(database, "trees", kept_trees),
            *_other_rows(database, "blobs", kept_blobs),
            *_other_packs(database, data),
            *_dead_packs(database, data, kept_trees, kept_blobs, record_span(len(entity.encode()))),
        ]


def disk_bytes(data: Path) -> int:
    """What the packs take. For while nothing runs."""
    return sum(path.stat().st_size for path in (data / "packs").rglob("*") if path.is_file())


def _other_rows(database: sqlite3.Connection, table: str, kept: set[bytes]) -> list[str]:
    states = dict(database.execute(f"SELECT digest, state FROM {table}"))
    wrong = {digest: state for digest, state in states.items() if state != ContentState.LIVE.value}
    return [
        *(f"{table} has {digest.hex()}, which nothing keeps" for digest in states.keys() - kept),
        *(f"{table} lacks {digest.hex()}, which is kept" for digest in kept - states.keys()),
        *(f"{table} has {digest.hex()} as {state}" for digest, state in wrong.items()),
    ]


def _other_packs(database: sqlite3.Connection, data: Path) -> list[str]:
    rows = {UUID(bytes=pack): state for pack, state in database.execute("SELECT id, state FROM packs")}
    found = {path for path in (data / "packs").rglob("*") if path.is_file()}
    packs = {UUID(path.stem) for path in found if path.suffix == ".pack"}
    return [
        *(f"pack {pack} has a file and no row" for pack in packs - rows.keys()),
        *(f"pack {pack} has a row and no file" for pack in rows.keys() - packs),
        *(f"pack {pack} is {state}" for pack, state in rows.items() if state != PackState.SEALED.value),
        *(f"{path} is neither a pack nor a tombstone" for path in found if path.suffix not in {".pack", ".deleted"}),
        *(f"tombstone {path} is not empty" for path in found if path.suffix == ".deleted" and path.stat().st_size),
    ]


def _dead_packs(
    database: sqlite3.Connection, data: Path, kept_trees: set[bytes], kept_blobs: set[bytes], owner_bytes: int
) -> list[str]:
    """Return the packs of which a collection should have let go, or which it should have compacted."""
    needed = kept_blobs | {page for (page,) in database.execute("SELECT page_digest FROM tree_pages")}
    for start_bytes, refs in database.execute("SELECT start_bytes, refs FROM recipe_parts"):
        needed.update(ref.digest for ref in unpack_refs(start_bytes, refs))
    spans: defaultdict[UUID, list[int]] = defaultdict(list)
    for digest, pack, stored_bytes in database.execute("SELECT digest, pack_id, stored_bytes FROM chunks"):
        if digest in needed:
            spans[UUID(bytes=pack)].append(record_span(stored_bytes))
    told = []
    storage = LocalPackStorage(data)
    try:
        for row, pack_class, durable_bytes in database.execute("SELECT id, class, durable_bytes FROM packs"):
            pack = UUID(bytes=row)
            if pack_class == PackClass.META:
                spans[pack] += _meta_spans(storage, pack, kept_trees, kept_blobs)
            live_bytes = sealed_bytes(owner_bytes + sum(spans[pack]), 1 + len(spans[pack]))
            dead_part = 1 - live_bytes / durable_bytes
            if not spans[pack] or dead_part >= _DEAD_PART:
                told.append(
                    f"pack {pack} of class {pack_class} has {len(spans[pack])} live records, {dead_part:.0%} dead"
                )
    finally:
        storage.close()
    return told


def _meta_spans(storage: LocalPackStorage, pack: UUID, kept_trees: set[bytes], kept_blobs: set[bytes]) -> list[int]:
    """Return the sizes of the RECIPE and TREE records of a pack that are of something that is kept."""
    spans = []
    for _, header, payload in scan_records(storage, pack, read_trailer(storage, pack).index_offset):
        if header.type is RecordType.RECIPE:
            is_kept = recipe_record_place(payload)[0] in kept_blobs
        else:
            is_kept = header.type is RecordType.TREE and tree_record_digest(payload) in kept_trees
        if is_kept:
            spans.append(record_span(header.stored_bytes))
    return spans
