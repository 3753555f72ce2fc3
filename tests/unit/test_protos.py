"""The .proto files are the specification: everything has a comment, and what the comments say of errors is true."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from lading_server.common.grpc_status import STATUSES
from lading_server.common.settings import Settings, limits

_ROOT = Path(__file__).parents[2]
_PAIR = re.compile(r"`([A-Z_]+)` \(`([A-Z0-9_]+)`\)")
_BULLET = re.compile(r"^\s*- (.+)$", re.MULTILINE)
_LIMIT = re.compile(r"`(max_\w+|\w+_seconds|window_bytes)`")
# Numbers of the fields by which descriptor.proto leads from a file to what is declared in it.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _ONEOFS, _VALUES, _METHODS = 2, 3, 4, 8, 2, 2

Path_ = tuple[int, ...]


class Declared(NamedTuple):
    """Something that a .proto file declares, and the comment above it."""

    name: str
    kind: str
    comment: str


@cache
def _files() -> tuple[FileDescriptorProto, ...]:
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run([buf, "build", "protos", "-o", "-#format=binpb"], cwd=_ROOT, check=True, capture_output=True)
    return tuple(FileDescriptorSet.FromString(done.stdout).file)


def _declared() -> Iterator[Declared]:
    for file in _files():
        comments = {tuple(at.path): at.leading_comments for at in file.source_code_info.location}
        for path, name, kind in _paths(file):
            yield Declared(name, kind, comments.get(path, ""))


def _paths(file: FileDescriptorProto) -> Iterator[tuple[Path_, str, str]]:
    for index, service in enumerate(file.service):
        yield (_SERVICES, index), service.name, "service"
        for at, method in enumerate(service.method):
            yield (_SERVICES, index, _METHODS, at), f"{service.name}.{method.name}", "rpc"
    for index, message in enumerate(file.message_type):
        yield from _message_paths((_MESSAGES, index), message, "")
    for index, enum in enumerate(file.enum_type):
        yield from _enum_paths((_ENUMS, index), enum, "")


def _message_paths(path: Path_, message: object, prefix: str) -> Iterator[tuple[Path_, str, str]]:
    name = f"{prefix}{message.name}"  # type: ignore[attr-defined]
    yield path, name, "message"
    for index, field in enumerate(message.field):  # type: ignore[attr-defined]
        yield (*path, _FIELDS, index), f"{name}.{field.name}", "field"
    for index, oneof in enumerate(message.oneof_decl):  # type: ignore[attr-defined]
        # An `optional` field has a oneof of its own that nobody wrote.
        if not oneof.name.startswith("_"):
            yield (*path, _ONEOFS, index), f"{name}.{oneof.name}", "oneof"
    for index, nested in enumerate(message.nested_type):  # type: ignore[attr-defined]
        yield from _message_paths((*path, _NESTED, index), nested, f"{name}.")
    for index, enum in enumerate(message.enum_type):  # type: ignore[attr-defined]
        yield from _enum_paths((*path, _NESTED_ENUMS, index), enum, f"{name}.")


def _enum_paths(path: Path_, enum: object, prefix: str) -> Iterator[tuple[Path_, str, str]]:
    name = f"{prefix}{enum.name}"  # type: ignore[attr-defined]
    yield path, name, "enum"
    for index, value in enumerate(enum.value):  # type: ignore[attr-defined]
        yield (*path, _VALUES, index), f"{name}.{value.name}", "enum value"


def test_everything_declared_has_a_comment_of_its_own() -> None:
    declared = list(_declared())
    assert {one.kind for one in declared} == {"service", "rpc", "message", "field", "oneof", "enum", "enum value"}
    assert [f"{one.kind} {one.name}" for one in declared if not one.comment.strip()] == []


def test_every_rpc_lists_its_errors() -> None:
    for one in _declared():
        if one.kind == "rpc":
            _, found, listed = one.comment.partition("Errors:")
            assert found, f"{one.name} has no `Errors:` list"
            assert _BULLET.search(listed), f"the `Errors:` list of {one.name} is empty"


def test_every_listed_error_is_a_status_or_says_that_there_is_none() -> None:
    codes = {code.name for code in grpc.StatusCode}
    for one in _declared():
        if one.kind in ("service", "rpc"):
            for bullet in _BULLET.findall(one.comment.partition("Errors:")[2]):
                named = re.match(r"`([A-Z_]+)`", bullet)
                assert bullet == "none of its own." or (named and named[1] in codes), f"{one.name}: {bullet}"


def _pairs() -> set[tuple[str, str]]:
    return {pair for one in _declared() for pair in _PAIR.findall(one.comment)}


def test_every_code_and_reason_of_the_protos_is_in_the_table() -> None:
    table = {(code.name, kind.reason) for kind, code in STATUSES.items()}
    assert len(_pairs()) > 30
    assert _pairs() - table == set()


def test_every_reason_of_the_table_is_in_the_protos() -> None:
    told = {reason for _, reason in _pairs()}
    assert {kind.reason for kind in STATUSES} - told == set()


def test_every_limit_that_the_protos_name_is_told_by_the_server() -> None:
    named = {name for one in _declared() for name in _LIMIT.findall(one.comment)}
    assert "stream_idle_seconds" in named
    assert "max_path_bytes" in named
    told = {limit.name for limit in limits(Settings())}
    assert named - told == set()


@pytest.mark.parametrize("limit", limits(Settings()), ids=lambda limit: limit.name)
def test_a_limit_has_a_value_and_says_what_it_bounds(limit: object) -> None:
    assert limit.value > 0  # type: ignore[attr-defined]
    assert len(limit.description.split()) > 2  # type: ignore[attr-defined]
