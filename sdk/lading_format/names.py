"""What entities, projects, collections, aliases, tags, types and ids may be called. Pure.

Every check returns the name, so that it can stand where the name is used, and raises InvalidName with the `field`.
"""

from __future__ import annotations

import re

from lading_format.errors import InvalidName

MODEL_REGISTRY = "model-registry"
"""The project that holds an entity's registered models."""
LATEST = "latest"
"""The alias that moves by itself to the newest version."""

_SHOWN_CHARACTERS = 140

_ENTITY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SPACED_NAME = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9][A-Za-z0-9._-]*( [A-Za-z0-9._-]+)*")
_RUN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=/+-]{0,127}")
_NUMBER = re.compile(r"v[0-9]+")
_MEMBER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_KEY_ID = re.compile(r"[a-z0-9]{12}")
_UID = re.compile(r"[0-9a-f]{32}")

_NAME_RULE = "1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"


def check_entity_name(name: str) -> str:
    """Return the name of an entity."""
    return _checked(_ENTITY, name, "entity", "1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")


def check_project(name: str) -> str:
    """Return the name of a project."""
    return _checked(_NAME, name, "project", _NAME_RULE)


def check_collection(project: str, name: str) -> str:
    """Return the name of a collection of `project`: registered models may have single spaces inside."""
    if project == MODEL_REGISTRY:
        return _checked(_SPACED_NAME, name, "collection", f"{_NAME_RULE}, with single spaces inside if wanted")
    return _checked(_NAME, name, "collection", _NAME_RULE)


def check_type(name: str) -> str:
    """Return the type of a collection: `dataset`, `model`."""
    return _checked(_NAME, name, "type", _NAME_RULE)


def check_alias(name: str) -> str:
    """Return an alias that may be looked for."""
    if _NUMBER.fullmatch(name):
        raise InvalidName(f"alias {name!r} looks like a version; choose another name", field="alias")
    return _checked(_NAME, name, "alias", f"{_NAME_RULE}, and not like a version (v7)")


def check_settable_alias(name: str) -> str:
    """Return an alias that may be set, moved and removed: any but `latest`, which moves by itself."""
    if name == LATEST:
        raise InvalidName(f"alias {LATEST!r} moves by itself to the newest version; leave it out", field="alias")
    return check_alias(name)


def check_tag(name: str) -> str:
    """Return a tag."""
    return _checked(_TAG, name, "tag", "1 to 128 of A-Z, a-z, 0-9 and '._:=/+-', beginning with a letter or digit")


def check_run_id(name: str) -> str:
    """Return the id of a run."""
    return _checked(_RUN, name, "run_id", "1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'")


def check_request_id(name: str) -> str:
    """Return the id of a request."""
    return _checked(_REQUEST, name, "request_id", "1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-': a fresh UUID, say")


def check_member(name: str) -> str:
    """Return the name of a member: of a person or a program."""
    return _checked(_MEMBER, name, "member", "1 to 64 of A-Z, a-z, 0-9, '.', '_', '@' and '-'")


def check_key_id(text: str) -> str:
    """Return the id of a key. What is none is not repeated: it may be a whole key."""
    if not _KEY_ID.fullmatch(text):
        raise InvalidName(
            "key_id is none: use the 12 characters after 'lading_', and not the whole key", field="key_id"
        )
    return text


def check_version_uid(text: str) -> bytes:
    """Return the 16 bytes of a version's id."""
    return bytes.fromhex(_checked(_UID, text, "uid", "32 lower-case hexadecimal digits"))


def _checked(rule: re.Pattern[str], name: str, field: str, words: str) -> str:
    if not rule.fullmatch(name):
        raise InvalidName(f"{field} {name[:_SHOWN_CHARACTERS]!r} is not usable: use {words}", field=field)
    return name
