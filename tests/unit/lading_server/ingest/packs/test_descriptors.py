"""Descriptors of packs that are read: the least recently used go, and none is closed under its reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from lading_server.ingest.packs.descriptors import ReadDescriptors


@pytest.fixture
def descriptors() -> Iterator[ReadDescriptors]:
    made = ReadDescriptors(1)
    yield made
    made.close()


@pytest.fixture
def packs(tmp_path: Path) -> dict[UUID, Path]:
    made = {uuid4(): tmp_path / str(number) for number in range(3)}
    for path in made.values():
        path.write_text(path.name)
    return made


def read(descriptors: ReadDescriptors, pack: UUID, path: Path) -> int:
    with descriptors.borrow(pack, path) as descriptor:
        assert os.pread(descriptor, 1, 0).decode() == path.name
        return descriptor


def test_the_next_reader_of_a_pack_gets_the_same_descriptor(
    descriptors: ReadDescriptors, packs: dict[UUID, Path]
) -> None:
    (pack, path), *_ = packs.items()
    assert read(descriptors, pack, path) == read(descriptors, pack, path)


def test_one_in_use_is_neither_counted_nor_closed_when_others_come_and_go(
    descriptors: ReadDescriptors, packs: dict[UUID, Path]
) -> None:
    (first, path), *others = packs.items()
    # Idle once, and so the least recently used of all while it is in use again.
    read(descriptors, first, path)
    with descriptors.borrow(first, path) as descriptor:
        for pack, other in others:
            read(descriptors, pack, other)
        assert os.pread(descriptor, 1, 0).decode() == path.name


def test_one_in_use_is_closed_when_it_comes_back_after_its_pack_was_forgotten(
    descriptors: ReadDescriptors, packs: dict[UUID, Path]
) -> None:
    (pack, path), *_ = packs.items()
    with descriptors.borrow(pack, path) as descriptor:
        descriptors.forget(pack)
        assert os.pread(descriptor, 1, 0).decode() == path.name
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
