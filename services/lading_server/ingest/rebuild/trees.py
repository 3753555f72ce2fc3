"""Trees from their records and pages: the digest is checked from what the pages say."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from lading_format.errors import ReasonedError
from lading_format.tree import TreeHasher
from lading_server.common.errors import CorruptRecord, TreeNotFound
from lading_server.ingest.domain.tree_pages import PageSummary, TreeTotals, decode_page
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.schema import ContentState, tree_pages, trees
from lading_server.ingest.index.statements import GroupStatements
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import Location
from lading_server.ingest.rebuild.report import Report

# Pages that are read together: 16 MiB at most.
_PAGES = 64


class TreeRows:
    """Writes trees."""

    def __init__(self, index: ContentIndex, storage: PackStorage, workers: Workers, report: Report) -> None:
        self._index = index
        self._storage = storage
        self._workers = workers
        self._report = report
        self._entities = Entities(index.database)
        self._statements = GroupStatements(index.database)

    async def write(self, entity: str, totals: TreeTotals, pages: Sequence[PageSummary], created_at_ms: int) -> None:
        """Write a tree that is not there yet. One that lacks a page becomes a damaged tree."""
        if await self._is_there(entity, totals.digest):
            return
        try:
            is_whole = await self._verify(entity, totals, pages)
        except ReasonedError as error:
            self._report.damaged_trees.add(f"b3:{totals.digest.hex()}: {error.message}")
            return
        # The judgement names those that are damaged.
        state = ContentState.LIVE if is_whole else ContentState.DAMAGED
        await self._insert(await self._entities.ensure(entity), totals, pages, state, created_at_ms)

    async def _is_there(self, entity: str, digest: bytes) -> bool:
        try:
            await self._index.trees.get(entity, digest)
        except TreeNotFound:
            return False
        return True

    async def _verify(self, entity: str, totals: TreeTotals, pages: Sequence[PageSummary]) -> bool:
        """Tell whether every page is there. Raises ReasonedError when they do not make the tree."""
        hasher = TreeHasher()
        for at in range(0, len(pages), _PAGES):
            some = pages[at : at + _PAGES]
            located = await self._index.chunks.locate(entity, list({page.digest for page in some}))
            if not all(page.digest in located for page in some):
                return False
            await self._workers.run(self._hash, hasher, some, located)
        if await self._workers.run(hasher.finish) != totals.digest:
            raise CorruptRecord("its pages do not have its digest")
        if (hasher.file_count, hasher.reference_count, hasher.size_bytes) != totals[1:]:
            raise CorruptRecord("its pages do not add up to what its record says")
        return True

    def _hash(self, hasher: TreeHasher, pages: Sequence[PageSummary], located: dict[bytes, Location]) -> None:
        digests = [page.digest for page in pages]
        payloads = read_payloads(self._storage, [located[digest] for digest in digests], digests)
        for page, payload in zip(pages, payloads, strict=True):
            entries = decode_page(payload)
            if len(entries) != page.entry_count or entries[0].path.encode() != page.first_path:
                raise CorruptRecord("a page is not what the tree's record says")
            for entry in entries:
                hasher.add(entry)

    async def _insert(
        self,
        entity_id: int,
        totals: TreeTotals,
        pages: Sequence[PageSummary],
        state: ContentState,
        created_at_ms: int,
    ) -> None:
        new = self._index.database.insert(trees).values(
            entity_id=entity_id,
            **totals._asdict(),
            page_count=len(pages),
            state=state.value,
            generation=0,
            created_at_ms=created_at_ms,
        )
        upsert = new.on_conflict_do_update(
            index_elements=["entity_id", "digest"],
            set_={
                "page_count": len(pages),
                "state": state.value,
                "generation": trees.c.generation + 1,
                "condemned_at_ms": None,
            },
        )
        rows: list[tuple[object, ...]] = [
            (entity_id, totals.digest, seq, page.first_path, page.digest, page.entry_count)
            for seq, page in enumerate(pages)
        ]
        old = sa.and_(tree_pages.c.entity_id == entity_id, tree_pages.c.tree_digest == totals.digest)
        async with self._index.database.write() as connection:
            await connection.execute(upsert)
            await connection.execute(sa.delete(tree_pages).where(old))
            await self._statements.tree_pages.run(connection, rows)
        self._report.trees += 1
