"""The cache as people see it: where it is, what is in it, and what to do with it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from lading._cache.blocks import Blocks, Unreadable
from lading._cache.eviction import evict
from lading._cache.listings import DamagedListing, read_listing
from lading._cache.settings import DEFAULT_LIMIT_BYTES, cache_directory, cache_limit_bytes
from lading._cache.space import Entry
from lading._cache.store import BORROWED_SUFFIX, CONTENT, SHARDS, TREE_SUFFIX, Store
from lading._cache.transfer import Transfer
from lading._download.plan import Plan
from lading._errors import InvalidArgument, LadingError
from lading._model import ListedEntry, StrPath
from lading_format.digest import format_digest, parse_digest
from lading_format.errors import FormatError

# About 80,000 files, and a tenth of a second. Who wants one path of a longer listing is faster to ask the server.
_LISTING_AT_MOST_BYTES = 8 << 20

_log = logging.getLogger("lading")


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a local cache holds.

    Attributes:
        path: Its directory, whether or not it is there.
        files: How many files are kept.
        trees: How many listings of versions are kept.
        size_bytes: What both take on disk; a file that a download shares with its user counts as well.
        limit_bytes: What they may take at most.
        oldest_use: When the entry that goes next was last used, true to the hour; None where there is none.
    """

    path: str
    files: int
    trees: int
    size_bytes: int
    limit_bytes: int
    oldest_use: datetime | None


@dataclass(frozen=True, slots=True)
class CachePruned:
    """What was removed from a local cache: entries, their bytes, and how many bytes are left."""

    entries: int
    size_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class CacheCheck:
    """Whether what a local cache holds is what its names say.

    Attributes:
        checked: How many entries were read.
        size_bytes: What they take on disk.
        dropped: The digests of those that were wrong, sorted. They are gone, and are fetched when they are wanted.
        edited: The digests of those that are gone because they were a downloaded file as well, and that is not any
            more what it was: most likely its user wrote to it. Sorted.
    """

    checked: int
    size_bytes: int
    dropped: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong. A file that was edited is no damage."""
        return not self.dropped


class LocalCache:
    """Files that this machine has had, by digest; downloads take them from here instead of from the server.

    Any number of processes of one user may use it at once. Making one reads and writes nothing. Its methods block on
    the disk: call them through `asyncio.to_thread` where there is an event loop.

    Attributes:
        directory: `LADING_CACHE_DIR`.
        limit_bytes: What its files may take at most; 0 keeps none.
    """

    def __init__(self, directory: StrPath, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Use a directory, which is made when something is first kept.

        Args:
            directory: It may hold other things.
            limit_bytes: Less is kept where the disk is nearly full: a twentieth of it, or 10 GiB, stays free.

        Raises:
            InvalidArgument: `limit_bytes` is negative.
        """
        if limit_bytes < 0:
            raise InvalidArgument(f"A cache of {limit_bytes} bytes cannot be. Give 0 to keep nothing.")
        self.directory = os.fspath(directory)
        self.limit_bytes = limit_bytes

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> LocalCache | None:
        """Return the user's cache, by `LADING_CACHE_DIR` and `LADING_CACHE_BYTES`; None where it is turned off.

        Raises:
            InvalidArgument: `LADING_CACHE_BYTES` is no number.
        """
        directory, limit_bytes = cache_directory(environ), cache_limit_bytes(environ)
        return cls(directory, limit_bytes) if directory is not None else None

    def info(self) -> CacheInfo:
        """Return what is in it.

        Raises:
            OSError: It cannot be read, or is not this user's alone.
        """
        found = self._entries()
        trees = sum([entry.name.endswith(TREE_SUFFIX) for entry in found])
        oldest_ns = min([entry.used_ns for entry in found], default=None)
        return CacheInfo(
            os.path.join(self.directory, CONTENT),
            len(found) - trees,
            trees,
            sum([entry.size_bytes for entry in found]),
            self.limit_bytes,
            None if oldest_ns is None else datetime.fromtimestamp(oldest_ns / 1e9, UTC),
        )

    def prune(self, max_bytes: int | None = None) -> CachePruned:
        """Remove what was not used for longest, until the rest fits.

        Args:
            max_bytes: How much may be left; 0 removes everything. Default: the cache's limit. Where there is more, a
                tenth less is left, so that the next download need not prune again.

        Raises:
            InvalidArgument: `max_bytes` is negative.
            OSError: The cache cannot be read or written, or is not this user's alone.
        """
        limit_bytes = self.limit_bytes if max_bytes is None else max_bytes
        if limit_bytes < 0:
            raise InvalidArgument(f"{limit_bytes} bytes cannot be left. Give 0 to remove everything.")
        try:
            with Store(self.directory, create=False) as store:
                done = evict(store, limit_bytes, look_at_most=None)
        except FileNotFoundError:
            return CachePruned(0, 0, 0)
        return CachePruned(done.entries, done.size_bytes, done.left_bytes)

    def verify(self) -> CacheCheck:
        """Read and hash everything; drop what is wrong.

        Raises:
            OSError: The cache cannot be read or written, or is not this user's alone.
        """
        dropped: list[str] = []
        edited: list[str] = []
        checked = checked_bytes = 0
        blocks = Blocks(threading.Event())
        try:
            with Store(self.directory, create=False) as store:
                for shard in SHARDS:
                    for entry in store.scan(shard):
                        checked += 1
                        checked_bytes += entry.size_bytes
                        if not _is_right(store, entry, blocks):
                            store.drop(entry.name)
                            gone = edited if entry.name.endswith(BORROWED_SUFFIX) else dropped
                            gone.append(format_digest(_digest_of(entry)))
        except FileNotFoundError:
            pass
        return CacheCheck(checked, checked_bytes, tuple(sorted(dropped)), tuple(sorted(edited)))

    def transfer(self, stop: threading.Event, *, links: bool = False, create: bool = True) -> Transfer | None:
        """Open it for one transfer; None, with a warning, where it cannot be used. For the SDK's own parts."""
        if not self.limit_bytes:
            return None
        try:
            return Transfer(Store(self.directory, create=create), self.limit_bytes, stop, links=links)
        except OSError as error:
            if create or not isinstance(error, FileNotFoundError):
                _log.warning("The cache in %s is not used: %s.", self.directory, error)
            return None

    def open_blob(self, digest: str) -> int | None:
        """Open a file that is here and was just hashed; None where there is none. For the SDK's own parts."""
        transfer = self.transfer(threading.Event(), create=False) if _is_digest(digest) else None
        if transfer is None:
            return None
        with transfer:
            return transfer.open_blob(parse_digest(digest))

    def listing(self, tree_digest: str) -> list[ListedEntry] | None:
        """Return a tree's verified listing; None where it is not here, or too long. For the SDK's own parts."""
        transfer = self.transfer(threading.Event(), create=False) if _is_digest(tree_digest) else None
        if transfer is None:
            return None
        with transfer:
            digest = parse_digest(tree_digest)
            if (transfer.listing_bytes(digest) or 0) > _LISTING_AT_MOST_BYTES:
                return None
            return transfer.read_tree(digest, lambda pages: _verified(pages, tree_digest))

    def _entries(self) -> list[Entry]:
        try:
            with Store(self.directory, create=False) as store:
                return [entry for shard in SHARDS for entry in store.scan(shard)]
        except FileNotFoundError:
            return []


def _verified(pages: Iterator[list[ListedEntry]], tree_digest: str) -> list[ListedEntry]:
    """Return all entries, once they were found to be those of the tree."""
    plan = Plan(tree_digest, "")
    entries: list[ListedEntry] = []
    for page in pages:
        plan.add(page)
        entries += page
    plan.finish()
    return entries


def _is_digest(text: str) -> bool:
    """Whether this is a digest. What is none is for the server to refuse."""
    try:
        parse_digest(text)
    except FormatError:
        return False
    return True


def _digest_of(entry: Entry) -> bytes:
    return bytes.fromhex(entry.name.removesuffix(TREE_SUFFIX).removesuffix(BORROWED_SUFFIX))


def _is_right(store: Store, entry: Entry, blocks: Blocks) -> bool:
    """Whether an entry is what its name says, or is gone."""
    try:
        fd = store.open_strictly(entry.name)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if entry.name.endswith(TREE_SUFFIX):
            _verified(read_listing(fd), format_digest(_digest_of(entry)))
            return True
        return blocks.digest(fd, os.fstat(fd).st_size) == _digest_of(entry)
    except (Unreadable, DamagedListing, LadingError):
        return False
    finally:
        os.close(fd)
