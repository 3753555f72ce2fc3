"""Where streams and files are cut."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_format.chunking import (
    CDC_MIN_BYTES,
    MAX_CHUNK_BYTES,
    SMALL_FILE_BYTES,
    TENSOR_CHUNK_BYTES,
    FileChanged,
    FileCutter,
    StreamCutter,
)
from lading_format.digest import blake3_digest
from lading_format.errors import ReasonedError

SEED = 20261124
MIB = 1 << 20
BUFFER_BYTES = 8 * MIB
# A rest of up to this much stays with the chunk before it.
TENSOR_REST_BYTES = 128 << 10
NOISE = random.Random(SEED).randbytes(24 * MIB + 12_345)
# What FastCDC finds no cut in, what it cuts, and what lies between.
MIXED = NOISE[: 3 * MIB] + bytes(5 * MIB) + NOISE[3 * MIB : 7 * MIB] + b"ab" * (3 * MIB)


@contextmanager
def opened(path: Path, data: bytes) -> Iterator[int]:
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def cut_all(cutter: FileCutter, buffer_bytes: int) -> Iterator[bytes]:
    """The chunks of a file that is read into one buffer again and again."""
    buffer = memoryview(bytearray(buffer_bytes))
    while cutter.left_bytes:
        before_bytes = cutter.left_bytes
        chunks = cutter.cut(buffer)
        assert cutter.left_bytes == before_bytes - sum(map(len, chunks))
        yield from map(bytes, chunks)


def file_chunks(
    path: Path, data: bytes, borders: Sequence[int] | None = None, buffer_bytes: int = BUFFER_BYTES
) -> list[bytes]:
    """The chunks of a file that has this content; checks that they are the file, without a gap."""
    with opened(path, data) as descriptor:
        chunks = list(cut_all(FileCutter(descriptor, len(data), borders), buffer_bytes))
    assert all(0 < len(chunk) <= MAX_CHUNK_BYTES for chunk in chunks)
    assert b"".join(chunks) == data
    return chunks


def stream_chunks(portions: Sequence[bytes]) -> list[bytes]:
    cutter = StreamCutter()
    chunks = [bytes(chunk) for portion in portions for chunk in cutter.feed(portion)]
    return chunks + [bytes(chunk) for chunk in cutter.finish()]


def portioned(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    portions: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(portions) % len(sizes)]
        portions.append(data[at : at + size])
        at += size
    return portions


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([MIXED, NOISE[: 9 * MIB], NOISE[:CDC_MIN_BYTES], NOISE[: CDC_MIN_BYTES + 1], bytes(2 * MIB), b""]),
    st.lists(st.integers(30_000, 5 * MIB), min_size=1, max_size=5),
)
def test_a_stream_is_cut_the_same_however_it_is_portioned(data: bytes, sizes: list[int]) -> None:
    assert stream_chunks(portioned(data, sizes)) == stream_chunks([data])


def test_a_stream_that_comes_byte_by_byte_is_cut_the_same() -> None:
    data = NOISE[: 3 * MIB]
    cutter = StreamCutter()
    chunks = [bytes(chunk) for at in range(len(data)) for chunk in cutter.feed(data[at : at + 1])]
    assert chunks + [bytes(chunk) for chunk in cutter.finish()] == stream_chunks([data])


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, SMALL_FILE_BYTES, SMALL_FILE_BYTES + 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, len(NOISE)],
)
def test_a_file_is_cut_as_a_stream_is(tmp_path: Path, size_bytes: int) -> None:
    data = NOISE[:size_bytes]
    assert file_chunks(tmp_path / "file", data) == stream_chunks([data])


@pytest.mark.parametrize("borders", [None, [], [MIB, 5 * MIB + 1]])
@pytest.mark.parametrize("buffer_bytes", [MAX_CHUNK_BYTES + 1, 3 * MIB, len(NOISE), len(NOISE) + 1])
def test_a_file_is_cut_the_same_whatever_the_buffer(
    tmp_path: Path, buffer_bytes: int, borders: list[int] | None
) -> None:
    path = tmp_path / "file"
    assert file_chunks(path, NOISE, borders, buffer_bytes) == file_chunks(path, NOISE, borders)
    assert file_chunks(path, MIXED, borders, buffer_bytes) == file_chunks(path, MIXED, borders)


def test_a_file_without_any_cut_is_cut_as_a_stream_is(tmp_path: Path) -> None:
    assert file_chunks(tmp_path / "file", MIXED) == stream_chunks([MIXED])


def test_small_files_are_one_chunk_even_with_borders(tmp_path: Path) -> None:
    data = NOISE[:SMALL_FILE_BYTES]
    assert file_chunks(tmp_path / "file", data, [100]) == [data]


@pytest.mark.parametrize("portion_bytes", [1_000, SMALL_FILE_BYTES])
def test_a_small_stream_is_one_chunk_and_the_rest_of_a_long_one_is_cut(portion_bytes: int) -> None:
    counts = set[int]()
    for begin in range(0, 8 * MIB, MIB):
        small = NOISE[begin : begin + SMALL_FILE_BYTES]
        assert stream_chunks(portioned(small, [portion_bytes])) == [small]
        counts.add(len(stream_chunks(portioned(NOISE[begin : begin + SMALL_FILE_BYTES + 1], [portion_bytes]))))
    assert max(counts) > 1
    # What is left at the end of a long one is less than that as well.
    assert min(map(len, stream_chunks(portioned(NOISE, [portion_bytes]))[:-1])) < SMALL_FILE_BYTES


def test_a_portion_may_be_overwritten_after_it_was_fed() -> None:
    buffer = bytearray(NOISE[:MIB])
    cutter = StreamCutter()
    chunks: list[memoryview] = []
    for at in range(0, 8 * MIB, MIB):
        buffer[:] = NOISE[at : at + MIB]
        chunks += cutter.feed(memoryview(buffer))
    chunks += cutter.finish()
    assert b"".join(chunks) == NOISE[: 8 * MIB]


def test_a_cutter_can_be_finished_twice_and_used_again() -> None:
    cutter = StreamCutter()
    assert cutter.finish() == []
    cutter.feed(b"abc")
    assert [bytes(chunk) for chunk in cutter.finish()] == [b"abc"]
    assert cutter.finish() == []


def test_a_stream_keeps_little_however_long_it_is() -> None:
    cutter = StreamCutter()
    kept_bytes = 0
    for portion in portioned(NOISE, [64 << 10]):
        kept_bytes += len(portion) - sum(map(len, cutter.feed(portion)))
        assert kept_bytes <= MAX_CHUNK_BYTES


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:1000] + b"*" * 64 + data[1000:], id="64 bytes inserted near the start"),
        pytest.param(lambda data: data[:1000] + data[1064:], id="64 bytes removed near the start"),
        pytest.param(
            lambda data: data[: 12 * MIB] + b"*" * 64 + data[12 * MIB :], id="64 bytes inserted in the middle"
        ),
        pytest.param(lambda data: data + b"*" * 64, id="64 bytes appended"),
    ],
)
def test_a_small_change_of_a_large_file_changes_few_chunks(change: Callable[[bytes], bytes]) -> None:
    data = random.Random(SEED + 1).randbytes(64 * MIB)
    before = {blake3_digest(chunk) for chunk in stream_chunks([data])}
    after = {blake3_digest(chunk) for chunk in stream_chunks([change(data)])}
    assert 1 <= len(after - before) <= 3, f"seed {SEED}"


@settings(max_examples=30, deadline=None)
@given(borders=st.lists(st.integers(1, 12 * MIB - 1), unique=True, max_size=40).map(sorted))
def test_a_file_is_cut_at_its_borders_and_every_mebibyte_between_them(
    tmp_path_factory: pytest.TempPathFactory, borders: list[int]
) -> None:
    data = NOISE[: 12 * MIB]
    chunks = file_chunks(tmp_path_factory.mktemp("borders") / "file", data, borders)
    ends, at = set[int](), 0
    for chunk in chunks:
        at += len(chunk)
        ends.add(at)
    assert ends >= set(borders)
    for begin, end in zip([0, *borders], [*borders, len(data)], strict=True):
        inner = sorted(cut - begin for cut in ends if begin < cut < end)
        assert inner == [TENSOR_CHUNK_BYTES * (index + 1) for index in range(len(inner))]
        rest = end - begin - len(inner) * TENSOR_CHUNK_BYTES
        assert rest <= TENSOR_CHUNK_BYTES + TENSOR_REST_BYTES
        assert not inner or rest > TENSOR_REST_BYTES


@pytest.mark.parametrize("borders", [None, [MIB]])
def test_a_file_that_became_shorter_is_told_as_changed(tmp_path: Path, borders: list[int] | None) -> None:
    with opened(tmp_path / "file", NOISE[: 10 * MIB]) as descriptor:
        chunks = cut_all(FileCutter(descriptor, 10 * MIB, borders), BUFFER_BYTES)
        next(chunks)
        os.truncate(tmp_path / "file", 9 * MIB)
        with pytest.raises(FileChanged, match="ended at 9437184 bytes") as caught:
            list(chunks)
    assert caught.value.offset_bytes == 9 * MIB
    # What has a reason has a status and is in the protocol, and this is told to nobody over the wire.
    assert not isinstance(caught.value, ReasonedError)


def test_a_small_file_that_became_shorter_is_told_as_changed(tmp_path: Path) -> None:
    with opened(tmp_path / "file", b"abc") as descriptor, pytest.raises(FileChanged):
        FileCutter(descriptor, 4).cut(memoryview(bytearray(4)))
