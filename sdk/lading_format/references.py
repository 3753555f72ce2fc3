"""How a version is written: `[lading://][entity/][project/]name[:alias | :vN | @b3:hex]`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lading_format.digest import format_digest, parse_digest
from lading_format.errors import InvalidName
from lading_format.names import LATEST, check_alias, check_collection, check_entity_name, check_project

SCHEME = "lading://"

_NUMBER = re.compile(r"v(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class VersionReference:
    """What a reference says. Exactly one of `alias`, `number` and `digest` is not None.

    Attributes:
        entity: The tenant; empty where the reference does not say.
        project: The project; empty where the reference does not say.
        collection: The collection's name.
        alias: An alias of the collection; `latest` where the reference names a collection only.
        number: The N of `vN`.
        digest: The tree, 32 bytes.
    """

    entity: str
    project: str
    collection: str
    alias: str | None = None
    number: int | None = None
    digest: bytes | None = None

    @property
    def selector(self) -> str:
        """What follows the name: `:staging`, `:v3` or `@b3:…`."""
        if self.digest is not None:
            return f"@{format_digest(self.digest)}"
        return f":v{self.number}" if self.number is not None else f":{self.alias}"

    def within(self, entity: str, project: str) -> VersionReference:
        """Return the same, with what it does not say filled in."""
        return replace(self, entity=self.entity or entity, project=self.project or project)

    def __str__(self) -> str:
        places = [place for place in (self.entity, self.project) if place]
        return "/".join([*places, self.collection]) + self.selector


def parse_reference(text: str) -> VersionReference:
    """Return what a reference says.

    Raises:
        InvalidName: A part breaks its rules; the message says which.
        InvalidDigest: What follows `@` is no digest.
    """
    rest = text.removeprefix(SCHEME)
    *places, last = rest.split("/")
    if len(places) > 2:
        raise InvalidName(
            f"reference {text[:200]!r} has too many parts; write [entity/][project/]name[:alias or :vN]",
            field="reference",
        )
    entity = check_entity_name(places[0]) if len(places) == 2 else ""
    project = check_project(places[-1]) if places else ""
    name, at, digest = last.partition("@")
    if at:
        return VersionReference(entity, project, check_collection(project, name), digest=parse_digest(digest))
    name, colon, selector = last.partition(":")
    collection = check_collection(project, name)
    numbered = _NUMBER.fullmatch(selector)
    if numbered:
        return VersionReference(entity, project, collection, number=int(numbered[1]))
    return VersionReference(entity, project, collection, alias=check_alias(selector) if colon else LATEST)
