"""Many digests in little memory: sorted, without repetitions, a batch at a time. Pure."""

from __future__ import annotations

from collections import defaultdict
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


class DigestWindow:
    """The smallest digests after a certain one, at most about `limit` of them: a pass over what does not fit at once.

    Takes up to twice `limit` digests of 32 bytes, repetitions included. Where there are more, it ends earlier.

    Invariant: it has every digest that was added, lies after `after`, and is not after `last`.
    """

    def __init__(self, after: bytes, limit: int, last: bytes | None = None) -> None:
        """`last`: the last digest that matters; None for all."""
        self._after = after
        self._limit = limit
        self._buckets: defaultdict[bytes, bytearray] = defaultdict(bytearray)
        self._count = 0
        self.last = last

    def update(self, digests: Iterable[bytes]) -> None:
        """Add those digests that lie in the window."""
        after, last, buckets = self._after, self.last, self._buckets
        for digest in digests:
            if digest > after and (last is None or digest <= last):
                # By two bytes: a bucket stays short, and digests are as good as random.
                buckets[digest[:2]] += digest
                self._count += 1
        if self._count > 2 * self._limit:
            self._shrink()

    def __contains__(self, digest: bytes) -> bool:
        bucket = self._buckets.get(digest[:2])
        if bucket is None:
            return False
        at = bucket.find(digest)
        while at % DIGEST_BYTES and at >= 0:
            at = bucket.find(digest, at + 1)
        return at >= 0

    def _shrink(self) -> None:
        """Forget repetitions, and then the largest beyond the limit."""
        before, self._buckets, self._count = self._buckets, defaultdict(bytearray), 0
        for key in sorted(before):
            bucket = before.pop(key)
            unique = sorted({bytes(bucket[at : at + DIGEST_BYTES]) for at in range(0, len(bucket), DIGEST_BYTES)})
            fitting = unique[: self._limit - self._count]
            if fitting:
                self._buckets[key] = bytearray(b"".join(fitting))
                self._count += len(fitting)
                largest = fitting[-1]
            if len(fitting) < len(unique):
                self.last = largest
                return
