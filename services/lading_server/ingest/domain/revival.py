"""Out of the trash: a tree, its blobs and the packs that they lie in, as long as nothing of it is gone for good."""

from __future__ import annotations

from collections.abc import Sequence

from lading_format.digest import blake3_digest
from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.pack_pool import PackPool
from lading_server.ingest.domain.reachability import PAGES
from lading_server.ingest.domain.recipes import RecipeSlice, encode_recipe_record
from lading_server.ingest.domain.tree_pages import PageSummary, TreeTotals, encode_tree_record, page_blobs
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.digests import DigestSet
from lading_server.ingest.index.marks import digests_in
from lading_server.ingest.index.rows import IndexBatch
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.index.trash import Trash
from lading_server.ingest.index.trashed import TrashedContent, TrashedTree
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackClass, PackStorage
from lading_server.ingest.packs.writer import Location, NewRecord

# Blobs that are looked at and revived together.
_BLOBS = 1024


class _Gone(Exception):
    """Something of the tree is not even in the trash."""


class Revival:
    """Revives trees of one entity, by its name and number.

    A tree is live last, and only when all of it is; what was revived before a failure is collected again. RECIPE and
    TREE records are written anew, because nobody knows which pack has the old ones.
    """

    def __init__(
        self, index: ContentIndex, trash: Trash, storage: PackStorage, workers: Workers, pool: PackPool
    ) -> None:
        self._index = index
        self._trash = trash
        self._content = TrashedContent(index.database)
        self._storage = storage
        self._workers = workers
        self._pool = pool

    async def run(self, entity: str, entity_id: int, tree_digest: bytes) -> bool:
        """Make the tree live with all that it needs; False when something is gone for good, or damaged.

        Raises DiskLow, StorageFailed: the records could not be written.
        """
        tree = await self._content.tree(entity_id, tree_digest)
        if tree is None:
            return False
        try:
            packs, blobs = await self._blobs(entity_id, tree)
            for batch in blobs.batches(_BLOBS):
                packs |= await self._packs_of_blobs(entity_id, batch)
        except _Gone:
            return False
        if not await self._trash.revive_packs(entity_id, packs):
            return False
        for batch in blobs.batches(_BLOBS):
            await self._write_recipes(entity, entity_id, batch)
            if not await self._trash.revive_blobs(entity_id, batch):
                return False
        if tree.is_condemned:
            await self._write_tree(entity, entity_id, tree)
        return await self._trash.revive_tree(entity_id, tree_digest)

    async def _blobs(self, entity_id: int, tree: TrashedTree) -> tuple[set[bytes], DigestSet]:
        """Return the packs that hold the tree's pages, and the blobs that these name. Raises _Gone."""
        packs: set[bytes] = set()
        blobs = DigestSet()
        pages = await self._content.pages(entity_id, tree.totals.digest)
        for first in range(0, len(pages), PAGES):
            some = [page.page_digest for page in pages[first : first + PAGES]]
            places = await self._places(entity_id, some)
            packs |= {place.pack.bytes for place in places}
            try:
                await self._workers.run(self._read, some, places, blobs)
            except CorruptRecord as error:
                raise _Gone from error
        return packs, blobs

    async def _packs_of_blobs(self, entity_id: int, digests: Sequence[bytes]) -> set[bytes]:
        """Return the packs that hold the blobs' chunks. Raises _Gone."""
        counts = await self._content.chunk_counts(entity_id, digests)
        if len(counts) < len(digests):
            raise _Gone
        single = [digest for digest, count in counts.items() if count == 1]
        packs = {place.pack.bytes for place in await self._places(entity_id, single)}
        several = [digest for digest, count in counts.items() if count > 1]
        async for part in self._content.recipe_parts(entity_id, several):
            packs |= {place.pack.bytes for place in await self._places(entity_id, digests_in(part.refs))}
        return packs

    async def _places(self, entity_id: int, digests: Sequence[bytes]) -> list[Location]:
        """Return where the chunks lie, in packs that are live or can be. Raises _Gone."""
        found = await self._content.places(entity_id, digests)
        try:
            return [found[digest] for digest in digests]
        except KeyError as error:
            raise _Gone from error

    async def _write_recipes(self, entity: str, entity_id: int, digests: Sequence[bytes]) -> None:
        records: list[NewRecord] = []
        async for part in self._content.recipe_parts(entity_id, digests, only_condemned=True):
            piece = RecipeSlice(part.start_bytes, part.refs)
            payload = encode_recipe_record(part.blob_digest, part.size_bytes, piece)
            if len(records) >= _BLOBS // 8 and not part.start_bytes:
                # Between two recipes: the next records may go to another pack, and a rebuild takes all of one from one.
                await self._write(entity, records)
                records = []
            records.append(NewRecord(RecordType.RECIPE, blake3_digest(payload), payload, None))
        await self._write(entity, records)

    async def _write_tree(self, entity: str, entity_id: int, tree: TrashedTree) -> None:
        pages = await self._content.pages(entity_id, tree.totals.digest)
        summaries = [PageSummary(page.first_path, page.page_digest, page.entry_count) for page in pages]
        payload = encode_tree_record(TreeTotals(*tree.totals[:4]), summaries)
        await self._write(entity, [NewRecord(RecordType.TREE, blake3_digest(payload), payload, None)])

    async def _write(self, entity: str, records: Sequence[NewRecord]) -> None:
        """Make records durable; no row points to them."""
        if not records:
            return
        async with self._pool.lease(entity, PackClass.META) as lease:
            pack, places = await lease.append(records)
            await pack.submit(IndexBatch(entity), sum(place.stored_bytes for place in places))

    def _read(self, pages: Sequence[bytes], places: Sequence[Location], blobs: DigestSet) -> None:
        for payload in read_payloads(self._storage, places, pages):
            blobs.update(page_blobs(payload))
