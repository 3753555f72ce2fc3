"""Whether the rows of the index fit together: level 1 of a check, which reads no packs.

What is damaged already is the exception: before it is called whole again, its bytes are read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lading_format.digest import blake3_digest, format_digest
from lading_format.tree import FileEntry
from lading_server.ingest.domain.check_bytes import ContentVerifier
from lading_server.ingest.domain.check_findings import HEAL, TELL, Finding, FindingKind, Step
from lading_server.ingest.index.checks import BlobCheck, PageCheck, Tenant, TreeCheck
from lading_server.ingest.index.rows import unpack_refs
from lading_server.ingest.index.schema import READABLE_STATES, ContentState, blobs, trees
from lading_server.ingest.index.store import ContentIndex

_CHUNKS_AT_ONCE = 8192
_BLOBS_AT_ONCE = 1000
_TREES_AT_ONCE = 200
_PINS_AT_ONCE = 1000
# Chunks of recipes whose sizes are looked up in one query.
_LOOK_UPS = 8192
_EMPTY = blake3_digest(b"")


@dataclass
class _Recipe:
    """A recipe that is read part by part. `fault` is the first thing that is wrong with it."""

    blob: BlobCheck
    size_bytes: int = 0
    chunk_count: int = 0
    fault: str = ""

    def add(self, start_bytes: int, sizes: Sequence[int]) -> None:
        """Take the next part."""
        if start_bytes != self.size_bytes:
            self.fault = self.fault or f"its recipe has nothing from {self.size_bytes:,} to {start_bytes:,}"
        self.size_bytes = start_bytes + sum(sizes)
        self.chunk_count += len(sizes)

    def end(self) -> None:
        """Judge the whole."""
        if (self.size_bytes, self.chunk_count) != (self.blob.size_bytes, self.blob.chunk_count):
            self.fault = self.fault or (
                f"its recipe has {self.chunk_count} chunks and {self.size_bytes:,} bytes, "
                f"and its row says {self.blob.chunk_count} and {self.blob.size_bytes:,}"
            )


@dataclass
class _Pages:
    """A tree's list of pages, read row by row."""

    tree: TreeCheck
    count: int = 0
    entries: int = 0
    last_path: bytes | None = None
    fault: str = ""

    def add(self, page: PageCheck) -> None:
        """Take the next page."""
        if page.seq != self.count or (self.last_path is not None and page.first_path <= self.last_path):
            self.fault = self.fault or f"its page {page.seq} stands where page {self.count} should"
        if not page.is_there:
            self.fault = self.fault or f"its page {page.seq} ({format_digest(page.page_digest)}) is not there"
        self.count += 1
        self.entries += page.entry_count
        self.last_path = page.first_path

    def end(self) -> None:
        """Judge the whole."""
        expected = (self.tree.page_count, self.tree.file_count + self.tree.reference_count)
        if (self.count, self.entries) != expected:
            self.fault = self.fault or (
                f"it has {self.count} pages and {self.entries} entries, "
                f"and its row says {expected[0]} and {expected[1]}"
            )


@dataclass
class _LookUps:
    """Chunks of recipes whose rows are looked up many at a time."""

    index: ContentIndex
    entity_id: int
    waiting: list[tuple[_Recipe, bytes, int]] = field(default_factory=list)

    async def add(self, recipe: _Recipe, chunks: Sequence[tuple[bytes, int]]) -> None:
        """Take chunks, each with the size that the recipe says."""
        self.waiting += [(recipe, digest, size_bytes) for digest, size_bytes in chunks]
        if len(self.waiting) >= _LOOK_UPS:
            await self.settle()

    async def settle(self) -> None:
        """Note what is wrong with the chunks so far."""
        waiting, self.waiting = self.waiting, []
        there = await self.index.checks.chunk_sizes(self.entity_id, {digest for _, digest, _ in waiting})
        for recipe, digest, size_bytes in waiting:
            if digest not in there:
                recipe.fault = recipe.fault or f"its chunk {format_digest(digest)} is not there"
            elif there[digest] != size_bytes:
                recipe.fault = recipe.fault or (
                    f"its chunk {format_digest(digest)} has {there[digest]:,} bytes and the recipe says {size_bytes:,}"
                )


_Judged = TypeVar("_Judged", _Recipe, _Pages)


@dataclass(frozen=True)
class RowChecks:
    """The phases of level 1. Each yields steps, from a position on; a finding was looked at twice."""

    index: ContentIndex
    verifier: ContentVerifier

    async def chunks(self, tenant: Tenant, after: bytes) -> AsyncGenerator[Step, None]:
        """Check the rows of chunks and tree pages."""
        while True:
            last, count = await self.index.checks.last_chunk(tenant.id, after, _CHUNKS_AT_ONCE)
            if last is None:
                return
            step = Step([last.hex()], count)
            odd = await self.index.checks.odd_chunks(tenant.id, after, last)
            again = set(await self.index.checks.odd_chunks(tenant.id, after, last)) if odd else set()
            for chunk in odd:
                if chunk in again:
                    where = "in no pack" if chunk.pack_state is None else "where no record can be"
                    message = f"the row of chunk {format_digest(chunk.digest)} says that it lies {where}; {TELL}"
                    step.findings.append(
                        Finding(FindingKind.ROW_WRONG, tenant.name, message, chunk.digest, chunk.pack, chunk.offset)
                    )
            yield step
            after = last

    async def blobs(self, tenant: Tenant, after: bytes) -> AsyncGenerator[Step, None]:
        """Check blobs: each chunk is there, and sizes add up. Marks what is damaged, and what is whole again."""
        while rows := await self.index.checks.blobs(tenant.id, after, _BLOBS_AT_ONCE):
            step = Step([rows[-1].digest.hex()], len(rows))
            faults = await self._blob_faults(tenant.id, rows)
            for row in rows:
                if row.state in READABLE_STATES and (row.digest in faults or row.state == ContentState.DAMAGED):
                    await self._look_at_blob(tenant, row.digest, step)
                elif _has_odd_state(row.state, row.is_condemned):
                    step.findings.append(_odd_state(tenant, f"blob {format_digest(row.digest)}", row.digest))
            yield step
            after = rows[-1].digest

    async def trees(self, tenant: Tenant, after: bytes) -> AsyncGenerator[Step, None]:
        """Check trees: each page is there, and counts add up. Marks what is damaged, and what is whole again."""
        while rows := await self.index.checks.trees(tenant.id, after, _TREES_AT_ONCE):
            step = Step([rows[-1].digest.hex()], len(rows))
            faults = await self._tree_faults(tenant.id, rows)
            for row in rows:
                if row.state in READABLE_STATES and (row.digest in faults or row.state == ContentState.DAMAGED):
                    await self._look_at_tree(tenant, row.digest, step)
                elif _has_odd_state(row.state, row.is_condemned):
                    step.findings.append(_odd_state(tenant, f"tree {format_digest(row.digest)}", row.digest))
            yield step
            after = rows[-1].digest

    async def pins(self, tenant: Tenant, after: bytes) -> AsyncGenerator[Step, None]:
        """Check that the tree of each pin that holds is there."""
        while rows := await self.index.checks.pins(tenant.id, after, _PINS_AT_ONCE):
            step = Step([rows[-1].version_uid.hex()], len(rows))
            for row in rows:
                if row.is_readable:
                    continue
                now = await self.index.checks.pin(tenant.id, row.version_uid)
                if now is not None and not now.is_readable:
                    message = (
                        f"version {row.version_uid.hex()} has tree {format_digest(row.tree_digest)}, which is not "
                        f"there; {HEAL}"
                    )
                    kind = FindingKind.CONTENT_MISSING
                    step.findings.append(Finding(kind, tenant.name, message, row.tree_digest, is_loss=True))
            yield step
            after = rows[-1].version_uid

    async def uploads(self, tenant: Tenant, _after: bytes) -> AsyncGenerator[Step, None]:
        """Check that uploads which are complete say what they came to."""
        odd = await self.index.checks.odd_uploads(tenant.id)
        messages = (f"upload {upload_id!r} is complete and has no digest; {TELL}" for upload_id in odd)
        yield Step([], 0, findings=[Finding(FindingKind.ROW_WRONG, tenant.name, message) for message in messages])

    async def usage(self, tenant: Tenant, _after: bytes) -> AsyncGenerator[Step, None]:
        """Check the sum of what an entity stores, and correct it."""
        counted, actual = await self.index.checks.usage(tenant.id)
        if counted == actual:
            yield Step([], 1)
            return
        # Both again, in one moment: others have stored something since.
        counted, actual = await self.index.checks.usage(tenant.id)
        step = Step([], 1)
        if counted != actual:
            await self.index.checks.correct_usage(tenant.id, actual - counted)
            message = f"the entity was said to store {counted:,} bytes and stores {actual:,}; it was corrected"
            step.findings.append(Finding(FindingKind.USAGE_WRONG, tenant.name, message))
        yield step

    async def _look_at_blob(self, tenant: Tenant, digest: bytes, step: Step) -> None:
        """Look at one blob again, by itself, and mark it as what it is."""
        row = await self.index.checks.blob(tenant.id, digest)
        if row is None:
            return
        fault = (await self._blob_faults(tenant.id, [row])).get(digest, "")
        if not fault and row.state == ContentState.DAMAGED and row.chunk_count > 1:
            fault = await self.verifier.blob_fault(tenant, row)
        await self._settle(tenant, FindingKind.BLOB_DAMAGED, row, fault, step)

    async def _look_at_tree(self, tenant: Tenant, digest: bytes, step: Step) -> None:
        """Look at one tree again, by itself, and mark it as what it is."""
        row = await self.index.checks.tree(tenant.id, digest)
        if row is None:
            return
        fault = (await self._tree_faults(tenant.id, [row])).get(digest, "")
        if not fault and row.state == ContentState.DAMAGED:
            missing: list[FileEntry] = []
            fault = await self.verifier.tree_fault(tenant, row, missing)
            if missing:
                fault = fault or f"blobs that it names are not there, {format_digest(missing[0].digest)} for one"
        await self._settle(tenant, FindingKind.TREE_DAMAGED, row, fault, step)

    async def _settle(
        self,
        tenant: Tenant,
        kind: FindingKind,
        row: BlobCheck | TreeCheck,
        fault: str,
        step: Step,
    ) -> None:
        losses, table = self.index.losses, blobs if kind is FindingKind.BLOB_DAMAGED else trees
        is_damaged = row.state == ContentState.DAMAGED
        if not fault:
            # By its generation: a part that was lost in just this moment counts it up.
            step.healed += is_damaged and await losses.restore(table, tenant.id, row.digest, row.generation)
        elif is_damaged or await losses.damage(table, tenant.id, row.digest, row.generation):
            message = f"{kind.value.split()[0]} {format_digest(row.digest)} is damaged: {fault}; {HEAL}"
            step.findings.append(Finding(kind, tenant.name, message, row.digest, is_loss=True))

    async def _blob_faults(self, entity_id: int, rows: Collection[BlobCheck]) -> dict[bytes, str]:
        """Return what is wrong with those of the blobs that can be read, as far as rows tell."""
        faults: dict[bytes, str] = {}
        recipes: dict[bytes, _Recipe] = {}
        for row in rows:
            if row.state not in READABLE_STATES:
                continue
            if row.chunk_count > 1:
                recipes[row.digest] = _Recipe(row)
            elif fault := _small_fault(row):
                faults[row.digest] = fault
        if recipes:
            look_ups = _LookUps(self.index, entity_id)
            async for digest, start_bytes, packed in self.index.checks.recipes(entity_id, recipes):
                refs = [(ref.digest, ref.size_bytes) for ref in unpack_refs(start_bytes, packed)]
                recipes[digest].add(start_bytes, [size_bytes for _, size_bytes in refs])
                await look_ups.add(recipes[digest], refs)
            await look_ups.settle()
        return faults | _faults_of(recipes, _Recipe.end)

    async def _tree_faults(self, entity_id: int, rows: Collection[TreeCheck]) -> dict[bytes, str]:
        """Return what is wrong with those of the trees that can be read, as far as rows tell."""
        lists = {row.digest: _Pages(row) for row in rows if row.state in READABLE_STATES}
        if lists:
            async for page in self.index.checks.pages(entity_id, lists):
                lists[page.tree].add(page)
        return _faults_of(lists, _Pages.end)


def _small_fault(row: BlobCheck) -> str:
    """Return what is wrong with a blob of one chunk, or of none."""
    if row.chunk_count == 0:
        is_empty = row.size_bytes == 0 and row.digest == _EMPTY
        return "" if is_empty else f"it has no chunks and its row says {row.size_bytes:,} bytes"
    if row.chunk_bytes is None:
        return "its chunk is not there"
    if row.chunk_bytes != row.size_bytes:
        return f"its chunk has {row.chunk_bytes:,} bytes and its row says {row.size_bytes:,}"
    return ""


def _faults_of(checked: dict[bytes, _Judged], end: Callable[[_Judged], None]) -> dict[bytes, str]:
    for one in checked.values():
        end(one)
    return {digest: one.fault for digest, one in checked.items() if one.fault}


def _has_odd_state(state: str, is_condemned: bool) -> bool:
    return is_condemned != (state == ContentState.CONDEMNED)


def _odd_state(tenant: Tenant, what: str, digest: bytes) -> Finding:
    message = f"{what} is condemned by its state or by its time, and not by both; {TELL}"
    return Finding(FindingKind.ROW_WRONG, tenant.name, message, digest)
