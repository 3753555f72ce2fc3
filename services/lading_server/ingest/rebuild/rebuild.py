"""The order of a rebuild: lost packs, chunks, pages, recipes and trees, states, and which store this is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.recipes import SpanReader, decode_recipe_record
from lading_server.ingest.domain.records import RecordReader
from lading_server.ingest.domain.tree_pages import decode_tree_record
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.schema import PackState, entities, packs, store
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.reader import ScannedRecord
from lading_server.ingest.packs.salvage import Salvage
from lading_server.ingest.packs.storage import PackClass, PackStorage
from lading_server.ingest.rebuild.adoption import OwnerUnknown, PackAdoption, created_at_ms, names_by_digest
from lading_server.ingest.rebuild.judgement import Judgement
from lading_server.ingest.rebuild.recipes import Recipe, RecipeAssembly, RecipeRows
from lading_server.ingest.rebuild.report import Report
from lading_server.ingest.rebuild.survey import FoundPack, classify, mark_lost
from lading_server.ingest.rebuild.trees import TreeRows

# Read at once: bounds the memory of recipes and trees that wait to be written.
_BATCH_BYTES = 8 << 20


class _Owned(NamedTuple):
    found: FoundPack
    entity: str


class Rebuild:
    """Makes the index know what the packs hold. Nobody else may use either meanwhile.

    It may be ended at any moment, and done again. Chunks come first, then what is made of them: a pack with recipes and
    trees counts as open, and so is read again, until all of them are written.
    """

    def __init__(
        self,
        index: ContentIndex,
        storage: PackStorage,
        workers: Workers,
        *,
        trusts_recipes: bool = False,
        on_progress: Callable[[Report], None] | None = None,
    ) -> None:
        """`trusts_recipes`: see RecipeRows."""
        self._index = index
        self._storage = storage
        self._workers = workers
        self.report = Report()
        self._on_progress = on_progress
        self._adoption = PackAdoption(index, storage, workers, self.report, self._notice)
        # What is damaged is judged here, and by nobody else meanwhile.
        spans = SpanReader(RecordReader(index.chunks, storage, workers, lambda *_: None), workers)
        self._recipes = RecipeRows(index, spans, self.report, trusts=trusts_recipes)
        self._trees = TreeRows(index, storage, workers, self.report)

    async def run(self) -> Report:
        """Do all of it. Raises DiskLow, StorageFailed, DatabaseUnavailable: do it again when that is mended."""
        known = await mark_lost(self._index, self._storage, self.report)
        ids = sorted(await self._workers.run(lambda: list(self._storage.packs())))
        self.report.packs, self.report.packs_known = len(ids), sum(pack in known for pack in ids)
        found = [await self._workers.run(classify, self._storage, pack) for pack in ids if pack not in known]
        await self._remember_store(found)
        data = [one for one in found if one.pack_class is PackClass.DATA]
        meta = [one for one in found if one.pack_class is PackClass.META]
        await self._adopt(data, PackState.SEALED)
        for owned in await self._adopt(meta, PackState.OPEN):
            await self._read_meta(owned)
            self._notice()
        async with self._index.database.read() as connection:
            entity_ids = (await connection.scalars(sa.select(entities.c.id))).all()
        await Judgement(self._index, self.report).run(entity_ids)
        return self.report

    async def _adopt(self, found: list[FoundPack], state: PackState) -> list[_Owned]:
        owned: list[_Owned] = []
        unowned: list[FoundPack] = []
        names = await names_by_digest(self._index)
        for one in found:
            try:
                entity = await self._adoption.adopt(one, state, names)
            except OwnerUnknown:
                unowned.append(one)
                continue
            if entity is not None:
                owned.append(_Owned(one, entity))
        # The others have told all the names that there are.
        names = await names_by_digest(self._index)
        for one in unowned:
            try:
                entity = await self._adoption.adopt(one, state, names)
            except OwnerUnknown:
                self.report.lost_packs.add(f"pack {one.pack}: whose it is cannot be read")
                continue
            if entity is not None:
                owned.append(_Owned(one, entity))
        return owned

    async def _read_meta(self, owned: _Owned) -> None:
        """Write the recipes and trees of a pack, and be done with it."""
        pack = owned.found.pack
        records = Salvage(self._storage, pack).records()
        assembly = RecipeAssembly(self.report)
        while batch := await self._workers.run(_batch, records):
            # In order: of two recipes for one blob the last one counts.
            recipes: list[Recipe] = []
            for record in batch:
                try:
                    if record.header.type is RecordType.RECIPE:
                        recipe = assembly.take(decode_recipe_record(record.payload))
                        recipes += [recipe] if recipe is not None else []
                    elif record.header.type is RecordType.TREE:
                        totals, pages = decode_tree_record(record.payload)
                        await self._trees.write(owned.entity, totals, pages, created_at_ms(pack))
                except CorruptRecord as error:
                    name = f"b3:{record.header.digest.hex()} at {record.offset} of pack {pack}"
                    self.report.damaged_records.add(f"{name}: {error.message}")
            await self._recipes.write(owned.entity, recipes)
        assembly.finish()
        done = sa.update(packs).where(packs.c.id == pack.bytes).values(state=PackState.SEALED.value)
        async with self._index.database.write() as connection:
            await connection.execute(done)

    async def _remember_store(self, found: list[FoundPack]) -> None:
        """Take the store's id from its newest pack, where the index has none, and the largest epoch."""
        headers = [one.header for one in found if one.header is not None]
        epoch = max((header.writer_epoch for header in headers), default=0)
        store_id: UUID = headers[-1].store_id if headers else uuid.uuid4()
        new = self._index.database.insert(store).values(id=1, store_id=store_id.bytes, writer_epoch=epoch)
        larger = new.on_conflict_do_update(
            index_elements=["id"], set_={"writer_epoch": epoch}, where=store.c.writer_epoch < epoch
        )
        async with self._index.database.write() as connection:
            await connection.execute(larger)

    def _notice(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.report)


def _batch(records: Iterator[ScannedRecord]) -> list[ScannedRecord]:
    """Read on for a while. The payloads are copies: what they were cut from is not kept in memory for them."""
    batch: list[ScannedRecord] = []
    size_bytes = 0
    for record in records:
        if record.header.type in (RecordType.RECIPE, RecordType.TREE):
            batch.append(record._replace(payload=memoryview(bytes(record.payload))))
            size_bytes += record.header.stored_bytes
            if size_bytes >= _BATCH_BYTES:
                break
    return batch
