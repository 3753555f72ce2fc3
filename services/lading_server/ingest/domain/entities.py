"""Names and ids that callers choose or bring: entities, sessions, uploads. Pure."""

from __future__ import annotations

import re

from lading_server.common.entities import check_entity as check_entity
from lading_server.common.errors import InvalidSession, InvalidUpload

SESSION_BYTES = 16

_UPLOAD = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SESSION = re.compile(r"[0-9a-f]{32}")


def check_upload_id(upload_id: str) -> str:
    """Return `upload_id`, or raise InvalidUpload."""
    if not _UPLOAD.fullmatch(upload_id):
        raise InvalidUpload(
            f"upload_id {upload_id[:140]!r} is not usable: use 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', "
            "for example a fresh UUID"
        )
    return upload_id


def parse_session(text: str) -> bytes:
    """Return the session's 16 bytes, or raise InvalidSession."""
    if not _SESSION.fullmatch(text):
        raise InvalidSession("session_id is not one that OpenSession gives: 32 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def format_session(session: bytes) -> str:
    """Return the form that `parse_session` takes."""
    return session.hex()
