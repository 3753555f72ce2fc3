"""Many digests in little memory: sorted, without repetitions, a batch at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lading_server.ingest.index.schema import DIGEST_BYTES

_BUCKETS = 256


class DigestSet:
    """A set of digests that takes 32 bytes for each time one was added, where a set of Python's takes 130.

    Kept by their first byte: a bucket is sorted when it is read, so no copy of all of them is ever made.
    """

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self.update(digests)

    def update(self, digests: Iterable[bytes]) -> None:
        """Add digests, of 32 bytes each."""
        for digest in digests:
            self._buckets[digest[0]] += digest

    def batches(self, size: int) -> Iterator[list[bytes]]:
        """Yield all digests in order, in lists of about `size` (more only where a bucket has more)."""
        batch: list[bytes] = []
        for bucket in self._buckets:
            batch += sorted({bytes(bucket[at : at + DIGEST_BYTES]) for at in range(0, len(bucket), DIGEST_BYTES)})
            if len(batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch
