"""References as people write them, with what they leave out filled in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lading._errors import InvalidArgument, format_errors
from lading_format.names import MODEL_REGISTRY, check_collection, check_entity_name, check_project
from lading_format.references import SCHEME, VersionReference, parse_reference

# What no collection is called.
_ALL = "*"


@dataclass(frozen=True, slots=True)
class CollectionName:
    """Where a collection is, in full."""

    entity: str
    project: str
    name: str


def version_name(text: str, entity: str, project: str) -> VersionReference:
    """Return what a reference means for a client of this entity and project.

    Args:
        text: `[lading://][entity/][project/]name[:alias | :vN | @b3:hex]`.
        entity: What the reference means where it names none.
        project: What the reference means where it names none.

    Raises:
        InvalidArgument: A part breaks its rules; the message says which.
    """
    rest = text.removeprefix(SCHEME)
    with format_errors():
        # The project comes first: it decides what the name may be.
        reference = parse_reference(rest if "/" in rest else f"{project}/{rest}")
        return reference.within(entity, project)


def collection_name(text: str, entity: str, project: str) -> CollectionName:
    """Return which collection `[entity/][project/]name` means. Raises as `version_name` does."""
    *places, name = text.removeprefix(SCHEME).split("/")
    if len(places) > 2:
        raise InvalidArgument(f"{text[:200]!r} has too many parts. Write [entity/][project/]name.")
    with format_errors():
        where = check_project(places[-1]) if places else project
        whose = check_entity_name(places[0]) if len(places) == 2 else entity
        return CollectionName(whose, where, check_collection(where, name))


def rule_place(text: str, entity: str, project: str) -> CollectionName:
    """Return for what a rule is: `[entity/][project/]name`, or `[entity/][project/]*` for all of a project.

    The name is empty for all of a project. Raises as `version_name` does.
    """
    if text.rpartition("/")[2] != _ALL:
        return collection_name(text, entity, project)
    # Any name does to have the places read.
    return replace(collection_name(f"{text.removesuffix(_ALL)}all", entity, project), name="")


def portfolio_name(text: str, entity: str) -> CollectionName:
    """Return which registered model `[entity/][model-registry/]name` means.

    Raises:
        InvalidArgument: It is in another project, or a part breaks its rules.
    """
    found = collection_name(text, entity, MODEL_REGISTRY)
    if found.project != MODEL_REGISTRY:
        raise InvalidArgument(f"{text[:200]!r} is no registered model. Link to {MODEL_REGISTRY}/{found.name}.")
    return found
