"""What CommitVersion is asked for, checked, and as the text that survives a crash. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from lading_format.errors import InvalidName
from lading_format.names import (
    MODEL_REGISTRY,
    check_collection,
    check_project,
    check_request_id,
    check_run_id,
    check_type,
)
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import TypeMismatch, WrongKind
from lading_server.common.roles import Role
from lading_server.common.settings import Settings
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.documents import check_description, parse_metadata
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.limits import check_count, check_tags
from lading_server.registry.domain.time_to_live import check_ttl
from lading_server.registry.store.rows import CollectionHead, Qualities


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """A tree, and what it should be called. `metadata` is a JSON object, as text."""

    project: str
    collection: str
    type: str
    tree_digest: bytes
    description: str = ""
    metadata: str = ""
    tags: tuple[str, ...] = ()
    aliases: tuple[AliasChange, ...] = ()
    run: str = ""
    request_id: str = ""
    ttl_seconds: int | None = None

    def checked(self, settings: Settings) -> CommitRequest:
        """Return the same, in the form that is kept.

        Raises:
            InvalidName, InvalidMetadata, TextTooLong, TooManyItems, InvalidRange: A part cannot be taken.
            WrongKind: Collections of the project get their versions by links.
        """
        check_collection(check_project(self.project), self.collection)
        if self.project == MODEL_REGISTRY:
            raise WrongKind(
                f"collections of {MODEL_REGISTRY} get versions by links; commit to another project, and link that"
            )
        if self.type:
            check_type(self.type)
        if self.run:
            check_run_id(self.run)
        if self.request_id:
            check_request_id(self.request_id)
        check_ttl(self.ttl_seconds)
        check_count(settings, len(self.aliases), "max_ref_changes")
        for alias in self.aliases:
            alias.check()
        return replace(
            self,
            description=check_description(self.description, settings.max_description_bytes),
            metadata=parse_metadata(self.metadata, "metadata_json", settings.max_metadata_bytes).text,
            tags=check_tags(settings, self.tags),
        )

    def check_collection(self, collection: CollectionHead | None) -> None:
        """Raise TypeMismatch when the collection has another type, InvalidName when it has to be made and has none."""
        if collection is None:
            if not self.type:
                raise InvalidName(
                    f"there is no collection {self.project}/{self.collection} yet; say the type of the new one",
                    field="type",
                )
        elif self.type and collection.type != self.type:
            raise TypeMismatch(
                f"{self.project}/{self.collection} holds versions of type {collection.type!r}, not {self.type!r}; "
                "choose another collection, or leave the type empty",
                expected=collection.type,
                actual=self.type,
            )

    def fingerprint(self) -> bytes:
        """Return what tells this request from others of the same id."""
        asked = self._fields()
        del asked["request_id"]
        return fingerprint("CommitVersion", **asked)

    def qualities(self) -> Qualities:
        """Return what rules of aliases may require of the version."""
        return Qualities(frozenset(self.tags), json.loads(self.metadata or "{}"))

    def to_json(self, caller: Caller) -> str:
        """Return the text that `from_json` takes, with who asks: what they may do counts when it is resumed too."""
        role = caller.role.value if caller.role is not None else None
        asking = {"principal": caller.principal, "origin": caller.origin, "role": role}
        asked = self._fields() | {"tree_digest": self.tree_digest.hex(), "caller": asking}
        return json.dumps(asked, ensure_ascii=False, separators=(",", ":"))

    def _fields(self) -> dict[str, Any]:
        """Return what `asdict` does, at a tenth of the cost: it copies each value."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"aliases": tuple(asdict(alias) for alias in self.aliases)}

    @classmethod
    def from_json(cls, entity: str, text: str) -> tuple[Caller, Self]:
        """Return who asked, and for what."""
        asked: dict[str, Any] = json.loads(text)
        asking = asked.pop("caller")
        role = Role(asking["role"]) if asking["role"] is not None else None
        caller = Caller(entity, asking["principal"], asking["origin"], role)
        asked["tree_digest"] = bytes.fromhex(asked["tree_digest"])
        asked["tags"] = tuple(asked["tags"])
        asked["aliases"] = tuple(AliasChange(**alias) for alias in asked["aliases"])
        return caller, cls(**asked)
