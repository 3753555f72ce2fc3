"""Page tokens: where a listing goes on, opaque to callers, and refused by any other listing. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from lading_format.digest import xxh3_64
from lading_server.common.errors import InvalidPageSize, InvalidPageToken

_CHECKSUM_BYTES = 8
_MOST_INTEGER = (1 << 63) - 1


def page_limit(asked: int, default: int, most: int) -> int:
    """Return how many items a page has. Raises InvalidPageSize."""
    if asked < 0:
        raise InvalidPageSize(f"page_size is {asked}; give 0 for the default, or how many you want")
    return min(asked or default, most)


def make_token(scope: Sequence[object], position: Sequence[object]) -> str:
    """Return the token of a listing that goes on after `position`.

    Args:
        scope: Everything that the listing was asked for, its entity first, as values that JSON has. The token is good
            for the same scope only.
        position: The keys of the last item, in the order that the listing is sorted by, as values that JSON has.
    """
    data = json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_checksum(scope, data) + data).decode().rstrip("=")


def open_token(token: str, scope: Sequence[object]) -> list[Any] | None:
    """Return the position of a token, or None for the first page. Raises InvalidPageToken."""
    if not token:
        return None
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        data = raw[_CHECKSUM_BYTES:]
        if raw[:_CHECKSUM_BYTES] == _checksum(scope, data):
            position = json.loads(data)
            if isinstance(position, list):
                return position
    except (UnicodeEncodeError, binascii.Error, ValueError, RecursionError):
        pass
    raise foreign_token()


def foreign_token() -> InvalidPageToken:
    """Return the error for a token that a listing did not give."""
    return InvalidPageToken("page_token is not one that this request gave; begin again without it")


def check_position(position: Sequence[object], kinds: Sequence[type]) -> None:
    """Raise InvalidPageToken unless the position has values of these kinds, which a database can take.

    A token is checked against accidents and not sealed: whoever makes one up is told that it is none.
    """
    if len(position) != len(kinds):
        raise foreign_token()
    for value, kind in zip(position, kinds, strict=True):
        is_usable = type(value) is kind
        if isinstance(value, int):
            is_usable = is_usable and -_MOST_INTEGER <= value <= _MOST_INTEGER
        elif isinstance(value, str):
            is_usable = is_usable and "\0" not in value
        if not is_usable:
            raise foreign_token()


def _checksum(scope: Sequence[object], data: bytes) -> bytes:
    text = json.dumps(scope, ensure_ascii=False).encode()
    return xxh3_64(b"%d:%b%b" % (len(text), text, data)).to_bytes(_CHECKSUM_BYTES, "little")
