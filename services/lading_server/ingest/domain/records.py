"""Reading records by digest. One that was moved since it was looked up is looked up again.

A compaction copies what lives and deletes the old pack, while readers that looked a place up before may take long to
come to it. So a place is believed once, and an error only when the index still says the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from lading_format.digest import format_digest
from lading_format.errors import ReasonedError
from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.chunks import ChunkIndex
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import Location

# A record that moved so often between being looked up and being read is being moved in a circle.
_LOOKS = 5

OnDamage = Callable[[str, bytes, Location], None]
"""Takes the entity, the digest and the place of a record that could not be read. Must not block."""


class Found(NamedTuple):
    """What became of reading records: their payloads, and why others cannot be read."""

    payloads: dict[bytes, memoryview]
    errors: dict[bytes, ReasonedError]

    def all_or_raise(self, digests: Sequence[bytes]) -> list[memoryview]:
        """Return the payloads in this order. Raises CorruptRecord, StorageFailed where one cannot be read."""
        for digest in digests:
            if digest in self.errors:
                raise self.errors[digest]
        return [self.payloads[digest] for digest in digests]


class RecordReader:
    """Reads chunks and tree pages, each verified against its checksum. Tells of those that are damaged."""

    def __init__(self, chunks: ChunkIndex, storage: PackStorage, workers: Workers, on_damage: OnDamage) -> None:
        self._chunks = chunks
        self._storage = storage
        self._workers = workers
        self._on_damage = on_damage

    async def locate(self, entity: str, digests: Collection[bytes]) -> dict[bytes, Location]:
        """Return where records lie; those that the entity does not have are left out."""
        return await self._chunks.locate(entity, list(digests))

    async def read(self, entity: str, digests: Collection[bytes], places: Mapping[bytes, Location]) -> Found:
        """Read records, neighbours together.

        Args:
            digests: Which. All are in memory at once.
            places: Where they were when they were looked up. One that has no place is lost.
        """
        wanted = {digest: places[digest] for digest in digests if digest in places}
        found = Found({}, {digest: lost(digest) for digest in digests if digest not in places})
        for _ in range(_LOOKS):
            some = await self._workers.run(_read_each, self._storage, wanted)
            found.payloads.update(some.payloads)
            if not some.errors:
                return found
            again = await self.locate(entity, some.errors)
            still = {digest: error for digest, error in some.errors.items() if again.get(digest) == wanted[digest]}
            for digest, error in still.items():
                self._on_damage(entity, digest, wanted[digest])
                found.errors[digest] = error
            for digest in some.errors.keys() - again.keys():
                found.errors[digest] = lost(digest)
            wanted = {digest: place for digest, place in again.items() if digest not in still}
            if not wanted:
                return found
        found.errors.update({digest: some.errors[digest] for digest in wanted})
        return found


def lost(digest: bytes) -> CorruptRecord:
    """Return the error for what has no place any more. The same words for chunks and pages."""
    return CorruptRecord(
        f"{format_digest(digest)} was lost; store the same files again, which sends what is lost and nothing else, and "
        "tell the operator"
    )


def _read_each(storage: PackStorage, places: Mapping[bytes, Location]) -> Found:
    digests = list(places)
    try:
        payloads = read_payloads(storage, [places[digest] for digest in digests], digests)
        return Found(dict(zip(digests, payloads, strict=True)), {})
    except (CorruptRecord, StorageFailed):
        found = Found({}, {})
    # Which one is it? Only who needs that one is to be told.
    for digest in digests:
        try:
            (found.payloads[digest],) = read_payloads(storage, [places[digest]], [digest])
        except (CorruptRecord, StorageFailed) as error:
            found.errors[digest] = error
    return found
