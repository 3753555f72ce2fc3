"""A digest for each of many files, as far as they are known, in little memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, count
from typing import overload

from lading_format.digest import DIGEST_BYTES


class KnownDigests(Sequence[bytes | None]):
    """For each file its digest, or None. 33 bytes a file, where a list takes 73.

    Attributes:
        joined: The digests of all, 32 bytes each, in their order; of one that is not known, what was last there.
    """

    def __init__(self, count: int) -> None:
        """Know none of so many."""
        self.joined = bytearray(DIGEST_BYTES * count)
        self._is_known = bytearray(count)

    def __len__(self) -> int:
        return len(self._is_known)

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes | None]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        if not self._is_known[at]:
            return None
        return bytes(self.joined[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES])

    def __setitem__(self, at: int, digest: bytes | None) -> None:
        at = range(len(self))[at]
        if digest is not None:
            if len(digest) != DIGEST_BYTES:
                raise ValueError(f"a digest has {DIGEST_BYTES} bytes and not {len(digest)}")
            self.joined[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES] = digest
        self._is_known[at] = digest is not None

    def unknown(self) -> Iterator[int]:
        """Yield the numbers of the files whose digest is not known."""
        return compress(count(), (not is_known for is_known in self._is_known))

    @property
    def are_any(self) -> bool:
        """Whether a digest is known."""
        return any(self._is_known)

    @property
    def are_all(self) -> bool:
        """Whether every digest is known."""
        return all(self._is_known)
