"""Pins held against the versions that the registry keeps: what has to be right before anything is collected.

The two services have databases of their own, and either may be put back to an older state. So every kept version is
made sure of a pin, and pins of versions that the registry does not know are told and never released by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from lading_format.digest import format_digest
from lading_server.common.errors import CorruptRecord, MissingBlobs, TreeNotFound
from lading_server.common.kept_versions import KeptVersion, KeptVersions
from lading_server.common.registry_errors import PinConflict, PinReleased
from lading_server.ingest.domain.pins import Pins
from lading_server.ingest.index.pins import PinIndex

_log = logging.getLogger(__name__)

# Versions, and pins, that are held against each other at once: some 100 KB of both.
PAGE = 1000
# Of what a report lists, this much is named.
NAMED = 1000

_GONE = (TreeNotFound, MissingBlobs)


class LostVersion(NamedTuple):
    """A kept version whose content cannot be pinned, and why."""

    uid: bytes
    tree_digest: bytes
    message: str


@dataclass
class Reconciliation:
    """What came of one entity.

    Attributes:
        versions: Versions that the registry keeps.
        repinned: Of these, those that had no pin and have one now; of a dry run, that would get one.
        revived: Of these, those whose tree was in the trash.
        over_tombstones: Of these, those whose pin had been released.
        unknown_pins: Pins of versions that the registry does not know.
        unknown: The first of these, by the ids of the versions.
        released_pins: Of these, those that were released because it was asked for.
        lost_versions: Versions whose content cannot be pinned.
        lost: The first of these.
    """

    versions: int = 0
    repinned: int = 0
    revived: int = 0
    over_tombstones: int = 0
    unknown_pins: int = 0
    unknown: list[bytes] = field(default_factory=list)
    released_pins: int = 0
    lost_versions: int = 0
    lost: list[LostVersion] = field(default_factory=list)

    def add_lost(self, version: KeptVersion, message: str) -> None:
        """Count a version whose content cannot be pinned."""
        self.lost_versions += 1
        if len(self.lost) < NAMED:
            self.lost.append(LostVersion(version.uid, version.tree_digest, message))

    def add_unknown(self, uids: Sequence[bytes]) -> None:
        """Count pins of versions that the registry does not know."""
        self.unknown_pins += len(uids)
        self.unknown += uids[: NAMED - len(self.unknown)]


class Reconciler:
    """Holds the pins of one entity at a time against the registry. Its memory is that of a page of each."""

    def __init__(
        self,
        versions: KeptVersions,
        pins: Pins,
        index: PinIndex,
        revive: Callable[[str, bytes], Awaitable[bool]],
        *,
        page: int = PAGE,
    ) -> None:
        """Make a reconciler.

        Args:
            revive: Takes a tree of an entity out of the trash; tells whether that could be done.
            page: Versions, and pins, at once.
        """
        self._run = partial(_Run, versions, pins, index, revive, page)

    async def reconcile(self, entity: str, *, dry_run: bool, release_unknown: bool = False) -> Reconciliation:
        """Make sure that every kept version has its pin, and tell which pins no version is known for.

        A merge of two sorted lists, a page at a time: of the versions up to one, and of the pins up to the same. What
        is committed or purged meanwhile is asked about once more, so it is never taken for something else.

        Args:
            dry_run: Change nothing, and tell what would be done.
            release_unknown: Release the pins that no version is known for.

        Raises:
            RegistryUnavailable: The registry does not answer.
            ContentMoved: A tree's content was moved again and again while it was to be pinned.
        """
        return await self._run(entity, dry_run, release_unknown).to_the_end()


@dataclass
class _Run:
    """The work on one entity."""

    _versions: KeptVersions
    _pins: Pins
    _index: PinIndex
    _revive: Callable[[str, bytes], Awaitable[bool]]
    _page: int
    _entity: str
    _dry_run: bool
    _release_unknown: bool
    result: Reconciliation = field(default_factory=Reconciliation)

    async def to_the_end(self) -> Reconciliation:
        """Do all of it."""
        after = b""
        while True:
            kept = await self._versions.page(self._entity, after, self._page)
            # The last page is empty: the pins that are left are those after every version.
            until = kept[-1].uid if kept else None
            # Versions first: a pin that was made before its version was listed is found, and one that is made later
            # belongs to a version that is asked about.
            await self._pin(kept)
            await self._find_unknown(after, until, {version.uid for version in kept})
            if until is None:
                return self.result
            after = until

    async def _pin(self, kept: Sequence[KeptVersion]) -> None:
        """Make sure that these versions have their pins."""
        self.result.versions += len(kept)
        rows = await self._index.rows(self._entity, [version.uid for version in kept])
        tombstones: list[KeptVersion] = []
        for version in kept:
            row = rows.get(version.uid)
            if row is None:
                if not await self._pin_new(version):
                    tombstones.append(version)
            elif not row.is_held:
                tombstones.append(version)
            elif row.tree_digest != version.tree_digest:
                self.result.add_lost(version, "its pin is on another tree")
        if tombstones:
            await self._pin_over(tombstones)

    async def _find_unknown(self, after: bytes, until: bytes | None, kept: set[bytes]) -> None:
        """Look at the pins between two versions, and tell those whose versions are not known."""
        while rows := await self._index.held(self._entity, after, self._page, until):
            after = rows[-1].version_uid
            strange = [row.version_uid for row in rows if row.version_uid not in kept]
            if strange:
                await self._ask_about(strange)

    async def _pin_new(self, version: KeptVersion) -> bool:
        """Make a pin that is not there. Return False when it was released in the meantime."""
        try:
            if await self._make(version, self._pins.acquire):
                self.result.repinned += 1
        except PinReleased:
            return False
        return True

    async def _pin_over(self, tombstones: Sequence[KeptVersion]) -> None:
        """Make pins again that were released, of those versions which the registry still expects.

        It is asked after the tombstones were seen: a version that it was about to purge when it listed it is not
        expected any more. One that is had its pin released by a registry whose database was put back since.
        """
        expected = await self._versions.expected(self._entity, [version.uid for version in tombstones])
        made = []
        for version in tombstones:
            if version.uid in expected and await self._make(version, self._pins.restore):
                self.result.repinned += 1
                self.result.over_tombstones += 1
                made.append(version.uid)
        if made and not self._dry_run:
            await self._take_back(made)

    async def _take_back(self, made: Sequence[bytes]) -> None:
        """Release pins again whose versions were purged while the pins were made: that release found a tombstone."""
        still = await self._versions.expected(self._entity, made)
        for uid in made:
            if uid not in still:
                await self._pins.release(self._entity, uid)
                self.result.repinned -= 1
                self.result.over_tombstones -= 1

    async def _make(self, version: KeptVersion, pin: Callable[[str, bytes, bytes], Awaitable[object]]) -> bool:
        """Make a version's pin, out of the trash if need be; tell whether it is there."""
        if self._dry_run:
            return True
        try:
            await pin(self._entity, version.uid, version.tree_digest)
        except PinConflict:
            self.result.add_lost(version, "its pin is on another tree")
            return False
        except CorruptRecord as error:
            self.result.add_lost(version, error.message)
            return False
        except _GONE as error:
            return await self._make_revived(version, pin, error)
        _log.warning("version %s had no pin on %s; it has one now", version.uid.hex(), _name(version))
        return True

    async def _make_revived(
        self,
        version: KeptVersion,
        pin: Callable[[str, bytes, bytes], Awaitable[object]],
        missing: TreeNotFound | MissingBlobs,
    ) -> bool:
        if not await self._revive(self._entity, version.tree_digest):
            self.result.add_lost(version, missing.message)
            return False
        try:
            await pin(self._entity, version.uid, version.tree_digest)
        except (*_GONE, CorruptRecord) as error:
            self.result.add_lost(version, error.message)
            return False
        _log.warning(
            "version %s had no pin, and %s was in the trash; it has one now", version.uid.hex(), _name(version)
        )
        self.result.revived += 1
        return True

    async def _ask_about(self, uids: Sequence[bytes]) -> None:
        expected = await self._versions.expected(self._entity, uids)
        strange = [uid for uid in uids if uid not in expected]
        # A pin that was being released when it was seen is no riddle.
        rows = await self._index.rows(self._entity, strange)
        unknown = [uid for uid in strange if rows[uid].is_held]
        self.result.add_unknown(unknown)
        if unknown and self._release_unknown and not self._dry_run:
            await self._release(unknown)

    async def _release(self, unknown: Sequence[bytes]) -> None:
        expected = await self._versions.expected(self._entity, unknown)
        for uid in unknown:
            if uid not in expected:
                await self._pins.release(self._entity, uid)
                self.result.released_pins += 1
                _log.warning("released the pin of version %s, which the registry does not know", uid.hex())


def _name(version: KeptVersion) -> str:
    return f"tree {format_digest(version.tree_digest)}"
