"""RECIPE and TREE records: needed as long as the index says of their blob or tree what they say.

No row points to them, so a META pack is judged by reading it. One that says something else than the rows - the blob was
cut anew since - is not needed: whoever rebuilds the index must not find the chunks of a recipe that nobody keeps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple
from uuid import UUID

from lading_format.digest import blake3_digest
from lading_server.ingest.domain.recipes import RecipeSlice, encode_recipe_record, recipe_record_place
from lading_server.ingest.domain.tree_pages import PageSummary, TreeTotals, encode_tree_record, tree_record_digest
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.marks import MarkedTreePage, MarkIndex
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.reader import ScannedRecord, read_trailer, scan_records
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import Location

# What has no rows.
_JUDGED = frozenset({RecordType.RECIPE, RecordType.TREE})
# Records that are judged together.
_RECORDS = 1024


class MetaRecord(NamedTuple):
    """A RECIPE or TREE record, and the blob or tree that it is of. `start_bytes` is that of a recipe's part."""

    type: RecordType
    digest: bytes
    location: Location
    subject: bytes
    start_bytes: int


class MetaRecords:
    """Reads META packs."""

    def __init__(self, marks: MarkIndex, storage: PackStorage, workers: Workers) -> None:
        self._marks = marks
        self._storage = storage
        self._workers = workers

    async def needed(self, entity_id: int, pack: UUID) -> AsyncIterator[list[MetaRecord]]:
        """Yield the RECIPE and TREE records of a sealed pack that are needed, in order, some at a time.

        Raises CorruptRecord, PackNotFound, ShortRead, StorageFailed.
        """
        trailer = await self._workers.run(read_trailer, self._storage, pack)
        # A page that is damaged says nothing of the others, and rows tell whether it is needed.
        scan = scan_records(self._storage, pack, trailer.index_offset, verified=_JUDGED)
        records = _meta_records(pack, scan)
        while batch := await self._workers.run(_take, records):
            current = await self._current_recipes(entity_id, batch) | await self._current_trees(entity_id, batch)
            yield [record for record in batch if record.digest in current]

    async def _current_recipes(self, entity_id: int, batch: list[MetaRecord]) -> set[bytes]:
        """Return the digests of the records of these recipes as they would be written now."""
        places = {(each.subject, each.start_bytes) for each in batch if each.type is RecordType.RECIPE}
        current: set[bytes] = set()
        async for part in self._marks.recipe_parts_of(entity_id, {blob for blob, _ in places}):
            if (part.blob_digest, part.start_bytes) in places:
                piece = RecipeSlice(part.start_bytes, part.refs)
                current.add(blake3_digest(encode_recipe_record(part.blob_digest, part.size_bytes, piece)))
        return current

    async def _current_trees(self, entity_id: int, batch: list[MetaRecord]) -> set[bytes]:
        current: set[bytes] = set()
        pages: list[MarkedTreePage] = []
        digests = {each.subject for each in batch if each.type is RecordType.TREE}
        async for page in self._marks.tree_pages_of(entity_id, digests):
            if pages and page.digest != pages[0].digest:
                current.add(_tree_record(pages))
                pages = []
            pages.append(page)
        return current | ({_tree_record(pages)} if pages else set())


def _meta_records(pack: UUID, records: Iterator[ScannedRecord]) -> Iterator[MetaRecord]:
    for offset, header, payload in records:
        location = Location(pack, offset, header.stored_bytes, header.raw_bytes)
        if header.type is RecordType.RECIPE:
            blob_digest, start_bytes = recipe_record_place(payload)
            yield MetaRecord(header.type, header.digest, location, blob_digest, start_bytes)
        elif header.type is RecordType.TREE:
            yield MetaRecord(header.type, header.digest, location, tree_record_digest(payload), 0)


def _take(records: Iterator[MetaRecord]) -> list[MetaRecord]:
    """Return the next records; none at the end."""
    batch: list[MetaRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == _RECORDS:
            break
    return batch


def _tree_record(pages: list[MarkedTreePage]) -> bytes:
    """Return the digest of the record of a tree as its rows have it; its first page says what it adds up to."""
    first = pages[0]
    totals = TreeTotals(first.digest, first.file_count, first.reference_count, first.size_bytes)
    summaries = [
        PageSummary(page.first_path, page.page_digest, page.entry_count)
        for page in pages
        if page.first_path is not None and page.page_digest is not None and page.entry_count is not None
    ]
    return blake3_digest(encode_tree_record(totals, summaries))
