"""References to versions, as requests write them. Pure."""

from __future__ import annotations

from lading_format.errors import InvalidName
from lading_format.references import VersionReference, parse_reference
from lading_server.common.callers import Caller


def reference_of(caller: Caller, text: str) -> VersionReference:
    """Return what a reference says, inside the entity of the caller.

    Raises:
        InvalidName: It breaks its rules, names no project, or another entity than the request.
        InvalidDigest: What follows `@` is no digest.
    """
    reference = parse_reference(text)
    if not reference.project:
        raise InvalidName(f"reference {text[:200]!r} names no project; write project/name", field="reference")
    if reference.entity not in ("", caller.entity):
        raise InvalidName(
            f"reference {text[:200]!r} is in entity {reference.entity!r} and the request in {caller.entity!r}; "
            "give the same in both",
            field="reference",
        )
    return reference.within(caller.entity, "")
