"""What tells two requests apart that have the same id. Pure."""

from __future__ import annotations

import json

from lading_format.digest import blake3_digest
from lading_format.names import check_request_id


def check_request(request_id: str) -> str:
    """Return the id of a request, which may have none. Raises InvalidName."""
    return check_request_id(request_id) if request_id else ""


def fingerprint(method: str, **fields: object) -> bytes:
    """Return the digest of a call: its method and everything that it asks for, as values that JSON has."""
    text = json.dumps([method, fields], sort_keys=True, ensure_ascii=False, default=_plain)
    return blake3_digest(text.encode())


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is nothing that a request has")
