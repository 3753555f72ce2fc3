"""Content that is told by a number: the same bytes in every process, so that nobody has to keep them to know them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

# Files of one chunk, of some bytes as of a full one. 0 is for one that is cut and begins as others do.
_SIZES = (7, 300, 6_000, 40_000, 120_000, 300_000, 0)
_SHARED_BYTES, _OWN_BYTES = 900_000, 300_000
# So many pieces in a row, those of them that are cut, have the same beginning.
_SHARING = 8


def content(piece: int) -> bytes:
    """The bytes of a piece."""
    rng = random.Random(piece)
    size_bytes = rng.choice(_SIZES)
    if size_bytes:
        return rng.randbytes(size_bytes)
    return random.Random(f"shared {piece // _SHARING}").randbytes(_SHARED_BYTES) + rng.randbytes(_OWN_BYTES)


def digest(piece: int) -> bytes:
    """The digest of a piece's file."""
    return blake3(content(piece)).digest()


def path_of(piece: int) -> str:
    """Where a piece lies in a tree: its name says what its bytes are."""
    return f"pieces/{piece:06}"


def piece_at(path: str) -> int:
    """The piece that lies at a path of a tree."""
    return int(path.removeprefix("pieces/"))


def tree_digest(pieces: Iterable[int]) -> str:
    """The digest of the tree of some pieces: what `b3sum` says of the sorted listing that `b3sum` prints."""
    lines = (f"{digest(piece).hex()}  {path_of(piece)}\n" for piece in sorted(set(pieces)))
    return "b3:" + blake3("".join(lines).encode()).hexdigest()


def files(directory: Path, pieces: Iterable[int]) -> dict[str, Path]:
    """What `Client.put` takes for a tree of pieces. Each is written to the directory once."""
    found = {}
    for piece in pieces:
        local = found[path_of(piece)] = directory / str(piece)
        if not local.exists():
            # Named when it is whole: whoever writes may be killed.
            aside = directory / f"{piece}.new"
            aside.write_bytes(content(piece))
            aside.rename(local)
    return found
