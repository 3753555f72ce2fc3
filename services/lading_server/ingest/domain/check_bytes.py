"""Whether blobs and trees are what their digests say: every byte read and hashed. Level 4 of a check."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from lading_format.digest import format_digest
from lading_format.errors import FormatError
from lading_format.tree import FileEntry, TreeEntry, TreeHasher
from lading_server.common.errors import BlobNotFound, CorruptRecord, SizeMismatch, StorageFailed, TreeNotFound
from lading_server.ingest.domain.check_findings import HEAL, Finding, FindingKind, Step
from lading_server.ingest.domain.recipes import BlobHasher, ChunkSpan, SpanReader
from lading_server.ingest.domain.tree_pages import decode_page
from lading_server.ingest.domain.tree_reader import TreeReader
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.checks import BlobCheck, Tenant, TreeCheck
from lading_server.ingest.index.schema import READABLE_STATES, ContentState, blobs, trees
from lading_server.ingest.index.store import ContentIndex

# Chunks that are located at once.
_SPANS_AT_ONCE = 1024
# Blobs or trees between two steps of a check, at most, and bytes.
_ROWS_AT_ONCE = 200
_STEP_BYTES = 64 << 20
# Files of one tree without a blob that are told, about.
_MISSING_AT_MOST = 1000


@dataclass(frozen=True)
class ContentVerifier:
    """Reads blobs and trees against their digests."""

    index: ContentIndex
    spans: SpanReader
    trees: TreeReader
    workers: Workers

    async def blob_fault(self, tenant: Tenant, blob: BlobCheck) -> str:
        """Return what is wrong with the bytes of a blob of several chunks, or ""; "" too where it is gone by now."""
        hasher = BlobHasher()
        spans: list[ChunkSpan] = []
        try:
            async for ref in self.index.blobs.recipe(tenant.name, blob.digest, 0, blob.size_bytes):
                spans.append(ChunkSpan(ref.digest, ref.size_bytes))
                if len(spans) == _SPANS_AT_ONCE:
                    await self._hash(tenant.name, hasher, spans)
                    spans = []
            await self._hash(tenant.name, hasher, spans)
        except BlobNotFound:
            return "" if await self._has_changed(tenant, blob) else "its recipe ends before its bytes do"
        except (CorruptRecord, SizeMismatch, StorageFailed) as error:
            return error.message
        if hasher.size_bytes != blob.size_bytes:
            return f"its chunks have {hasher.size_bytes:,} bytes and it has {blob.size_bytes:,}"
        return "" if hasher.digest() == blob.digest else "its bytes do not have its digest"

    async def tree_fault(self, tenant: Tenant, tree: TreeCheck, missing: list[FileEntry] | None = None) -> str:
        """Return what is wrong with a tree's pages, or ""; "" too where it is gone by now.

        `missing`: takes files whose blobs are not there at all.
        """
        hasher = TreeHasher()
        try:
            async for page in self.trees.page_digests(tenant.name, tree.digest):
                payload = await self.trees.payload(tenant.name, page)
                entries = await self.workers.run(_add_page, hasher, payload)
                if missing is not None and len(missing) < _MISSING_AT_MOST:
                    missing += await self._missing(tenant.name, entries)
            digest = await self.workers.run(hasher.finish)
        except TreeNotFound:
            return ""
        except (CorruptRecord, FormatError, StorageFailed) as error:
            return error.message
        if digest != tree.digest:
            return "its pages do not have its digest"
        totals = (hasher.file_count, hasher.reference_count, hasher.size_bytes)
        told = (tree.file_count, tree.reference_count, tree.size_bytes)
        return "" if totals == told else f"its files, references and bytes are {totals}, and its row says {told}"

    async def blobs(self, tenant: Tenant, after: bytes) -> AsyncGenerator[Step, None]:
        """Check the blobs of several chunks after one. One that is wrong is marked as damaged."""
        while rows := await self.index.checks.blobs(tenant.id, after, _ROWS_AT_ONCE):
            step = Step([])
            for row in rows:
                step.position = [row.digest.hex()]
                step.items += 1
                if row.chunk_count > 1 and row.state == ContentState.LIVE:
                    step.bytes_read += row.size_bytes
                    step.findings += await self._blob_findings(tenant, row)
                if step.bytes_read >= _STEP_BYTES:
                    yield step
                    step = Step(step.position)
            yield step
            after = rows[-1].digest

    async def trees_of(self, tenant: Tenant, after: bytes) -> AsyncGenerator[Step, None]:
        """Check the trees after one. One that is wrong is marked as damaged."""
        while rows := await self.index.checks.trees(tenant.id, after, _ROWS_AT_ONCE):
            step = Step([])
            for row in rows:
                if row.state in READABLE_STATES:
                    step.findings += await self._tree_findings(tenant, row)
            step.position, step.items = [rows[-1].digest.hex()], len(rows)
            yield step
            after = rows[-1].digest

    async def _blob_findings(self, tenant: Tenant, row: BlobCheck) -> list[Finding]:
        fault = await self.blob_fault(tenant, row)
        # A second look: it may have been stored anew, moved or collected while it was read.
        if not fault or await self._has_changed(tenant, row):
            return []
        fault = await self.blob_fault(tenant, row)
        if not fault or not await self.index.losses.damage(blobs, tenant.id, row.digest, row.generation):
            return []
        message = f"blob {format_digest(row.digest)} is damaged: {fault}; {HEAL}"
        return [Finding(FindingKind.BLOB_DAMAGED, tenant.name, message, row.digest, is_loss=True)]

    async def _tree_findings(self, tenant: Tenant, row: TreeCheck) -> list[Finding]:
        missing: list[FileEntry] = []
        findings: list[Finding] = []
        fault = await self.tree_fault(tenant, row, missing)
        if fault and row.state == ContentState.LIVE:
            fault = await self.tree_fault(tenant, row)
            if fault and await self.index.losses.damage(trees, tenant.id, row.digest, row.generation):
                message = f"tree {format_digest(row.digest)} is damaged: {fault}; {HEAL}"
                findings.append(Finding(FindingKind.TREE_DAMAGED, tenant.name, message, row.digest, is_loss=True))
        # What nobody pinned may be half collected at any moment.
        if missing and await self.index.checks.is_pinned(tenant.id, row.digest):
            for entry in await self._missing(tenant.name, missing):
                names = f"tree {format_digest(row.digest)} names blob {format_digest(entry.digest)}"
                message = f"{names}, which is not there; {HEAL}"
                finding = Finding(FindingKind.CONTENT_MISSING, tenant.name, message, entry.digest, is_loss=True)
                findings.append(finding)
                # So that whoever has the same files is told to send what is missing.
                await self.index.losses.damage(trees, tenant.id, row.digest, row.generation)
        return findings

    async def _missing(self, entity: str, entries: Sequence[TreeEntry]) -> list[FileEntry]:
        files = [entry for entry in entries if isinstance(entry, FileEntry)]
        there = await self.index.blobs.readable(entity, list({entry.digest for entry in files}))
        return [entry for entry in files if entry.digest not in there]

    async def _has_changed(self, tenant: Tenant, row: BlobCheck) -> bool:
        now = await self.index.checks.blob(tenant.id, row.digest)
        return now is None or now.generation != row.generation

    async def _hash(self, entity: str, hasher: BlobHasher, spans: Sequence[ChunkSpan]) -> None:
        located = await self.spans.locate(entity, spans)
        await self.spans.hash_into(entity, hasher, spans, located)


def _add_page(hasher: TreeHasher, payload: memoryview) -> list[TreeEntry]:
    entries = decode_page(payload)
    for entry in entries:
        hasher.add(entry)
    return entries
