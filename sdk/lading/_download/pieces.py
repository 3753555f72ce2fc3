"""Checks that a ReadBlobs stream sends what was asked for, in order, and no byte more. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lading._download.plan import Wanted
from lading._download.wire import ReceivedPiece
from lading._errors import IntegrityError, error_from
from lading_format.digest import format_digest


class PieceOrder:
    """Follows one stream.

    Invariant: of the blob at `_index`, exactly the bytes before `_offset_bytes` were seen; all blobs before it whole.

    Args:
        wanted: The blobs in the order of the request.
        offset_bytes: Where the first range began; the others begin at 0.
    """

    def __init__(self, wanted: Sequence[Wanted], offset_bytes: int = 0) -> None:
        self._wanted = wanted
        self._index = 0
        self._offset_bytes = offset_bytes

    @property
    def is_complete(self) -> bool:
        """Whether every range was sent to its end."""
        return self._index == len(self._wanted)

    def check(self, pieces: Sequence[ReceivedPiece]) -> Iterator[tuple[Wanted, bytes | memoryview, bool]]:
        """Yield each piece's blob, its bytes, and whether they are the last; the pieces are those of one message.

        Raises:
            IntegrityError: The server sent something else than was asked for.
            LadingError: The server says why it cannot send a blob.
        """
        if not pieces:
            raise IntegrityError("The server sent a message without content.")
        for piece in pieces:
            if self.is_complete or piece.range_index != self._index:
                raise IntegrityError(f"The server sent a piece of range {piece.range_index}, out of order.")
            wanted = self._wanted[self._index]
            name = f"{wanted.targets[0].path!r} ({format_digest(wanted.digest)})"
            if piece.error is not None:
                raise error_from(piece.error.code, piece.error.reason, f"{name}: {piece.error.message}")
            if piece.offset_bytes != self._offset_bytes:
                raise IntegrityError(f"The server sent {name} from byte {piece.offset_bytes}, out of order.")
            data = piece.data
            self._offset_bytes += len(data)
            if self._offset_bytes > wanted.size_bytes:
                raise IntegrityError(f"The server sent more than the {wanted.size_bytes} bytes of {name}.")
            if piece.last:
                if self._offset_bytes < wanted.size_bytes:
                    raise IntegrityError(
                        f"The server sent {self._offset_bytes} bytes of {name}, which has {wanted.size_bytes}."
                    )
                self._index += 1
                self._offset_bytes = 0
            elif not data:
                raise IntegrityError(f"The server sent a piece of {name} without bytes.")
            yield wanted, data, piece.last
