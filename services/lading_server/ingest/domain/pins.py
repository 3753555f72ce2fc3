"""Pins: the permanent promise to the registry that a tree is whole and stays whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext

from lading_format.digest import format_digest
from lading_server.common.errors import MissingBlobs
from lading_server.common.page_tokens import check_position, foreign_token, make_token, open_token, page_limit
from lading_server.common.pins import VERSION_UID_BYTES
from lading_server.common.registry_errors import InvalidPin, PinConflict, PinReleased
from lading_server.ingest.domain.records import RecordReader
from lading_server.ingest.domain.tree_pages import TreeTotals, page_blobs
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.digests import DigestSet
from lading_server.ingest.index.rows import PinRow
from lading_server.ingest.index.store import ContentIndex

DEFAULT_PAGE_SIZE = 1000
# Pages of a tree that are read at once: 4 MiB at most.
_PAGES = 16
# Pages so short are read in the time that it takes to ask a thread for it: about a hundred files.
_FEW_BYTES = 8192
# The digests of a tree's files take 32 bytes each while its pin is acquired. Trees with more files than this, 3 MB, go
# one at a time, so that the memory is bounded by the largest tree (64 MB at the default limit) and not by the callers.
_LARGE_FILES = 100_000


class Pins:
    """Acquires and releases pins. Every method is inside the entity that it is given."""

    def __init__(self, index: ContentIndex, records: RecordReader, workers: Workers, max_page_size: int) -> None:
        self._index = index
        self._records = records
        self._workers = workers
        self._max_page_size = max_page_size
        self._large = asyncio.Lock()

    async def acquire(self, entity: str, version_uid: bytes, tree_digest: bytes) -> TreeTotals:
        """Promise that a tree stays whole for a version; return its totals. May be repeated.

        A promise that was made is told without a write.

        Raises:
            InvalidPin: `version_uid` is not 16 bytes long.
            TreeNotFound: The entity has no such tree.
            MissingBlobs: Content of the tree was collected.
            PinConflict: The version's pin is on another tree.
            PinReleased: The version's pin was released.
            ContentMoved: Content was moved again and again while it was looked for.
            CorruptRecord: A page of the tree is damaged at rest.
        """
        _check_uid(version_uid)
        pin = await self._index.pins.find(entity, version_uid)
        if pin is not None:
            _check_pin(pin, tree_digest)
        # What is promised already is told, whatever happened since; a new promise is made of a whole tree.
        trees = self._index.trees
        row = await (trees.get if pin is None else trees.readable)(entity, tree_digest)
        if pin is None:
            async with self._large if row.file_count > _LARGE_FILES else nullcontext():
                blobs = await self._blobs(entity, tree_digest)
                _check_pin(await self._index.pins.acquire(entity, version_uid, tree_digest, blobs), tree_digest)
        return TreeTotals(tree_digest, row.file_count, row.reference_count, row.size_bytes)

    async def restore(self, entity: str, version_uid: bytes, tree_digest: bytes) -> PinRow:
        """Make a pin that a version lost, over its tombstone too; return the version's pin as it is then.

        For the reconciler alone, when the registry said that it keeps the version.

        Raises:
            TreeNotFound, MissingBlobs, ContentMoved, CorruptRecord: As `acquire`.
        """
        row = await self._index.trees.get(entity, tree_digest)
        async with self._large if row.file_count > _LARGE_FILES else nullcontext():
            blobs = await self._blobs(entity, tree_digest)
            return await self._index.pins.restore(entity, version_uid, tree_digest, blobs)

    async def release(self, entity: str, version_uid: bytes) -> None:
        """Take a promise back, for ever. May be repeated, and come before the promise. Raises InvalidPin."""
        _check_uid(version_uid)
        await self._index.pins.release(entity, version_uid)

    async def list_page(self, entity: str, page_size: int, page_token: str) -> tuple[list[PinRow], str]:
        """Return pins that hold, by version, and the token of the next page or "".

        Raises InvalidPageSize, InvalidPageToken.
        """
        limit = page_limit(page_size, DEFAULT_PAGE_SIZE, self._max_page_size)
        scope = [entity, "pins"]
        position = open_token(page_token, scope)
        after = _after(position) if position is not None else b""
        rows = await self._index.pins.held(entity, after, limit + 1)
        token = make_token(scope, [rows[limit - 1].version_uid.hex()]) if len(rows) > limit else ""
        return rows[:limit], token

    async def _blobs(self, entity: str, tree_digest: bytes) -> DigestSet:
        """Return the digests of a tree's files. Raises TreeNotFound, MissingBlobs, CorruptRecord."""
        digests = DigestSet()
        async for pages in self._page_digests(entity, tree_digest):
            places = await self._records.locate(entity, set(pages))
            if len(places) < len(set(pages)):
                raise MissingBlobs(
                    f"pages of tree {format_digest(tree_digest)} were collected; put the tree again, then commit again",
                    digests="",
                )
            payloads = (await self._records.read(entity, set(pages), places)).all_or_raise(pages)
            if sum(map(len, payloads)) <= _FEW_BYTES:
                _add_blobs(payloads, digests)
            else:
                await self._workers.run(_add_blobs, payloads, digests)
        return digests

    async def _page_digests(self, entity: str, tree_digest: bytes) -> AsyncIterator[list[bytes]]:
        rows = await self._index.trees.pages(entity, tree_digest, None, _PAGES)
        while rows:
            yield [row.page_digest for row in rows]
            if len(rows) < _PAGES:
                return
            # It gives the page again that has this path.
            rows = (await self._index.trees.pages(entity, tree_digest, rows[-1].first_path, _PAGES + 1))[1:]


def _add_blobs(pages: Sequence[memoryview], digests: DigestSet) -> None:
    for page in pages:
        digests.update(page_blobs(page))


def _after(position: Sequence[object]) -> bytes:
    """Return the version that a page begins after. Raises InvalidPageToken."""
    check_position(position, (str,))
    try:
        return bytes.fromhex(str(position[0]))
    except ValueError as error:
        raise foreign_token() from error


def _check_uid(version_uid: bytes) -> None:
    if len(version_uid) != VERSION_UID_BYTES:
        raise InvalidPin(f"version_uid has {len(version_uid)} bytes; the id of a version has {VERSION_UID_BYTES}")


def _check_pin(pin: PinRow, tree_digest: bytes) -> None:
    """Raise PinReleased or PinConflict unless the pin is what was asked for."""
    if not pin.is_held:
        raise PinReleased("the version's pin was released, which is for ever; commit the tree as another version")
    if pin.tree_digest != tree_digest:
        raise PinConflict("the version's pin is on another tree, and a version has one tree; commit another version")
