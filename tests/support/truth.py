"""What is true of a store, as far as one who only saw what was asked of it can know. Pure: no I/O, no clock.

Nothing here is taken from the store but the ids of versions and which tree a damaged page is of.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lading_format.chunking import StreamCutter
from lading_format.digest import blake3_digest

MODEL = "model-registry/Model"
# Files up to this size are one chunk; see DESIGN, chunking.
_ONE_CHUNK_BYTES = 512 << 10
_rng = random.Random(5)
_SHARED = _rng.randbytes(1_200_000)
# Some small ones that lie together in one pack, and long ones that share chunks with each other.
CONTENTS: Mapping[str, bytes] = {
    "empty": b"",
    "short": b"a few bytes",
    **{f"small {number}": _rng.randbytes(4_000 + 7_000 * number) for number in range(4)},
    "long": _SHARED,
    "long and more": _SHARED + _rng.randbytes(400_000),
}

Files = tuple[tuple[str, str], ...]
"""Paths with the names of their contents, sorted."""


def _chunks(content: bytes) -> frozenset[bytes]:
    if len(content) <= _ONE_CHUNK_BYTES:
        return frozenset({blake3_digest(content)} if content else ())
    cutter = StreamCutter()
    # Once more for each call: what it gives is a view of what it was fed.
    cuts = [bytes(one) for one in cutter.feed(content)] + [bytes(one) for one in cutter.finish()]
    assert b"".join(cuts) == content
    return frozenset(map(blake3_digest, cuts))


CHUNKS = {name: _chunks(content) for name, content in CONTENTS.items()}


def tree_digest(files: Files) -> str:
    """Return the name of a tree: what `b3sum` says of the `b3sum` listing."""
    listing = "".join(f"{blake3_digest(CONTENTS[content]).hex()}  {path}\n" for path, content in files)
    return f"b3:{blake3_digest(listing.encode()).hex()}"


State = Literal["live", "deleted", "purged"]


@dataclass
class TrueVersion:
    """A version that was acknowledged. `uid` is empty until it was read."""

    collection: str
    number: int
    files: Files
    digest: str
    uid: str = ""
    state: State = "live"
    deleted_at: float = 0.0
    ends_at: float | None = None

    @property
    def reference(self) -> str:
        return f"{self.collection}:v{self.number}"

    @property
    def key(self) -> tuple[str, int]:
        return self.collection, self.number

    @property
    def chunks(self) -> frozenset[bytes]:
        return frozenset().union(*(CHUNKS[content] for _, content in self.files))


class Seen(NamedTuple):
    """What a registry shows: of live and deleted versions, and of links, their trees; and where aliases point."""

    live: dict[tuple[str, int], str]
    deleted: dict[tuple[str, int], str]
    aliases: dict[tuple[str, str], int]


@dataclass
class Truth:
    """Every version, alias and link that there should be, and what is known to be lost.

    Attributes:
        links: By their numbers in the one registered model: the source's key. Those that are there.
        lost: Chunks and pages that were damaged, and not uploaded since.
        pages: Of which tree a page is that was damaged.
        damaged: Everything that ever was. A database that goes back may find it again.
        has_pins: Whether ingest knows which versions there are. Not when its database was made anew.
    """

    versions: list[TrueVersion] = field(default_factory=list)
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)
    links: dict[int, tuple[str, int]] = field(default_factory=dict)
    links_made: int = 0
    lost: set[bytes] = field(default_factory=set)
    pages: dict[bytes, str] = field(default_factory=dict)
    damaged: set[bytes] = field(default_factory=set)
    has_pins: bool = True

    # --- what is there ---

    def of(self, *states: State) -> list[TrueVersion]:
        """Return the versions in these states, the oldest first."""
        return [version for version in self.versions if version.state in states]

    def version(self, key: tuple[str, int]) -> TrueVersion:
        return next(version for version in self.versions if version.key == key)

    def is_used(self, version: TrueVersion) -> bool:
        """Tell whether an alias other than `latest`, or a link, points at a version."""
        return version.key in self.links.values() or any(
            (collection, number) == version.key for (collection, _), number in self.aliases.items()
        )

    def seen(self) -> Seen:
        """Return what a registry shows that has all of it."""
        live = {version.key: version.digest for version in self.of("live")}
        live |= {(MODEL, number): self.version(key).digest for number, key in self.links.items()}
        aliases = dict(self.aliases)
        for collection in {collection for collection, _ in live}:
            aliases[collection, "latest"] = max(number for name, number in live if name == collection)
        return Seen(live, {version.key: version.digest for version in self.of("deleted")}, aliases)

    # --- what is lost ---

    def is_listing_lost(self, version: TrueVersion) -> bool:
        return any(self.pages.get(digest) == version.digest for digest in self.lost)

    def lost_paths(self, version: TrueVersion) -> set[str]:
        """Return the files of a version of which a part is lost."""
        return {path for path, content in version.files if CHUNKS[content] & self.lost}

    def is_hurt(self, version: TrueVersion) -> bool:
        return self.is_listing_lost(version) or bool(self.lost_paths(version))

    def may_be_told(self) -> Iterator[bytes]:
        """Yield every digest that a check may name: what is lost, and what needs it."""
        yield from self.lost
        for content, chunks in CHUNKS.items():
            if chunks & self.lost:
                yield blake3_digest(CONTENTS[content])
        for version in self.versions:
            if self.is_hurt(version):
                yield bytes.fromhex(version.digest.removeprefix("b3:"))

    def lose(self, digest: bytes, tree: str) -> None:
        """A chunk is damaged; or a page, of that tree."""
        self.lost.add(digest)
        self.damaged.add(digest)
        if tree:
            self.pages[digest] = tree

    # --- what is done ---

    def put(self, collection: str, files: Files, aliases: tuple[str, ...]) -> None:
        """Files are stored, and are a version. What of them was lost is there again."""
        digest = tree_digest(files)
        needed = frozenset().union(*(CHUNKS[content] for _, content in files))
        self.lost -= needed | {page for page, tree in self.pages.items() if tree == digest}
        same = [one for one in self.of("live") if (one.collection, one.digest) == (collection, digest)]
        if same:
            version = same[-1]
            version.ends_at = None
        else:
            number = sum(one.collection == collection for one in self.versions)
            version = TrueVersion(collection, number, files, digest)
            self.versions.append(version)
        for alias in aliases:
            self.aliases[collection, alias] = version.number

    def link(self, source: TrueVersion) -> None:
        if source.key not in self.links.values():
            self.links[self.links_made] = source.key
            self.links_made += 1

    def delete(self, version: TrueVersion, now: float, *, purge: bool = False) -> None:
        """A version goes, with what points at it."""
        if version.state == "live":
            version.deleted_at = now
            self.aliases = {key: number for key, number in self.aliases.items() if (key[0], number) != version.key}
            self.links = {number: key for number, key in self.links.items() if key != version.key}
        version.state = "purged" if purge else "deleted"

    def time_is(self, now: float, undelete_seconds: float) -> None:
        """What was deleted for long enough is purged."""
        for version in self.of("deleted"):
            if version.deleted_at + undelete_seconds <= now:
                version.state = "purged"

    def retention(self, now: float) -> None:
        """What has no time left goes, unless it is used."""
        for version in self.of("live"):
            if version.ends_at is not None and version.ends_at <= now and not self.is_used(version):
                self.delete(version, now)
