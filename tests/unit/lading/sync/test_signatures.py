"""Both sides have the same names with the same parameters. Whoever adds to one side adds to the other."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import lading
import lading.sync
from lading import _face
from lading.sync._items import Items

# What one side alone has, and why.
ONLY_ASYNC = {
    "IngestClient": "the part without names, for tools and tests",
    "sync": "the other side itself",
}
ONLY_SYNC = {"Items": "what generators are here"}
# Names that only lead from one side to the other, or that a language construct stands for.
BRIDGES = {"native", "of"}
NOT_ASYNC_ANY_MORE = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__await__": "result"}
# `connection` is what a Version goes through, and `native` leads to it.
FIELDS = {"connection": "native"}

CLASSES = ["Client", "Run", "LoggedArtifact", "Version", "RemoteFile"]
VALUES = [
    "ChangeAliases",
    "Committed",
    "DeleteResult",
    "Lineage",
    "Link",
    "RefResult",
    "RunDetails",
    "Undeleted",
    "Unlink",
    "Version",
]


def public(cls: type) -> dict[str, Any]:
    """What a class and its own bases have, and people use."""
    names = {
        name
        for name in dir(cls)
        if (not name.startswith("_") or name in NOT_ASYNC_ANY_MORE or name == "__init__") and name not in BRIDGES
    }
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return {name: inspect.getattr_static(cls, name) for name in names - fields}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any, str]]:
    """Names, kinds, defaults and annotations."""
    found = inspect.signature(function).parameters.values()
    return [(item.name, item.kind, item.default, plain_type(item.annotation)) for item in found]


def plain_type(annotation: Any) -> str:
    """An annotation as it reads, without where it was imported from."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("native.", "").replace("Native", "").replace("lading.", "")


def expected_return(function: Any) -> str:
    """What the plain form of an asynchronous function returns."""
    text = plain_type(inspect.signature(function).return_annotation)
    if inspect.isasyncgenfunction(function):
        return f"Items[{text.removeprefix('AsyncGenerator[').removesuffix(', None]')}]"
    if text.startswith("AbstractAsyncContextManager["):
        return f"Iterator[{text.removeprefix('AbstractAsyncContextManager[').removesuffix(']')}]"
    return text


def test_both_sides_have_the_same_names() -> None:
    asynchronous, plain = set(_face.__all__), set(lading.sync.__all__)
    assert asynchronous - plain == ONLY_ASYNC.keys()
    assert plain - asynchronous == ONLY_SYNC.keys()
    assert lading.sync.__all__ == sorted(lading.sync.__all__)


def test_what_is_only_a_value_is_the_same_on_both_sides() -> None:
    differing = {
        name
        for name in set(_face.__all__) & set(lading.sync.__all__)
        if getattr(lading, name) is not getattr(lading.sync, name)
    }
    assert differing == {*CLASSES, *VALUES, "init"}
    assert lading.sync.Artifact is lading.Artifact


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_have_the_same_members(name: str) -> None:
    asynchronous, plain = getattr(lading, name), getattr(lading.sync, name)
    missing = {NOT_ASYNC_ANY_MORE.get(member, member) for member in public(asynchronous)} - set(dir(plain))
    # Attributes that only instances have are properties of the other side.
    assert missing == set()
    if name != "RemoteFile":  # which has everything that a file object has
        known = set(dir(asynchronous)) | set(asynchronous.__annotations__) | {"client", "config", "summary"}
        assert {member for member in public(plain) if member not in known} == set()


def members() -> list[tuple[str, str]]:
    """Every method and property of the classes that are written for both sides."""
    found = []
    for name in CLASSES:
        for member in public(getattr(lading, name)):
            made_by_us = (name, member) in {("Run", "__init__"), ("LoggedArtifact", "__init__")}
            if (
                name != "RemoteFile"
                and member != "__await__"
                and not made_by_us
                and (name, member) != ("Version", "__init__")
            ):
                found.append((name, member))
    return sorted(found)


@pytest.mark.parametrize(("name", "member"), members())
def test_the_members_have_the_same_signature(name: str, member: str) -> None:
    one = inspect.getattr_static(getattr(lading, name), member)
    other = inspect.getattr_static(getattr(lading.sync, name), NOT_ASYNC_ANY_MORE.get(member, member))
    if isinstance(one, property):
        assert isinstance(other, property)
        assert one.fget is not None
        assert other.fget is not None
        one, other = one.fget, other.fget
    if not callable(one):
        return
    assert not inspect.iscoroutinefunction(other)
    assert parameters(one) == parameters(other)
    assert expected_return(one) == plain_type(inspect.signature(other).return_annotation)


def test_init_takes_the_same() -> None:
    assert parameters(lading.init) == parameters(lading.sync.init)


@pytest.mark.parametrize("name", VALUES)
def test_the_values_have_the_same_fields(name: str) -> None:
    def shape(cls: Any) -> list[tuple[str, str]]:
        return [(FIELDS.get(item.name, item.name), plain_type(item.type)) for item in dataclasses.fields(cls)]

    mine, theirs = shape(getattr(lading, name)), shape(getattr(lading.sync, name))
    assert [item for item in mine if item[0] != "native"] == [item for item in theirs if item[0] != "native"]


def test_a_parameter_that_one_side_lacks_would_be_found() -> None:
    class One:
        async def method(self, a: int, *, b: str = "") -> None: ...

    class Other:
        def method(self, a: int) -> None: ...

    assert parameters(One.method) != parameters(Other.method)
    assert expected_return(One.method) == "None"
    assert expected_return(lading.Version.files) == "Items[ListedEntry]"
    assert Items.__name__ == "Items"
