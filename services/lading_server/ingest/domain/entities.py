"""Names and ids that callers choose or bring: entities, sessions, uploads. Pure."""

from __future__ import annotations

import re

from lading_server.common.errors import InvalidEntity, InvalidSession, InvalidUpload

SESSION_BYTES = 16

_ENTITY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UPLOAD = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SESSION = re.compile(r"[0-9a-f]{32}")


def check_entity(name: str) -> str:
    """Return `name`, or raise InvalidEntity."""
    if not _ENTITY.fullmatch(name):
        raise InvalidEntity(
            f"entity {name[:80]!r} is not a name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


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
