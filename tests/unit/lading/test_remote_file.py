"""A file that is read by ranges: what was returned is what was verified, whatever failed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

import lading
import lading.sync
from lading._remote_file import RemoteFile
from lading_format.digest import blake3_digest, format_digest

SHORT = b"header" * 100
# Of several blocks, and more than the buffer of the plain side holds.
LONG = bytes(range(256)) * (3 << 12)
DATA = {"short": SHORT, "long": LONG}


class Content:
    """Sends a file's bytes; a test puts others in their place, or an error.

    Attributes:
        sent: What is sent.
        error: What is raised instead of bytes at `error_from` or later, once.
        waiting: Set when it was asked for bytes at `hang_from` or later; they never come.
    """

    def __init__(self, data: bytes) -> None:
        self.sent = data
        self.error: Exception | None = None
        self.error_from = 0
        self.hang_from = len(data)
        self.waiting = asyncio.Event()

    async def read_file(self, digest: str, *, offset_bytes: int, length_bytes: int) -> AsyncIterator[bytes]:
        if offset_bytes >= self.hang_from:
            self.waiting.set()
            await asyncio.Event().wait()
        if offset_bytes >= self.error_from and self.error is not None:
            error, self.error = self.error, None
            raise error
        yield self.sent[offset_bytes : offset_bytes + length_bytes]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of the long file takes several fetches."""
    monkeypatch.setattr("lading._remote_file._BLOCK_BYTES", 512 << 10)


def opened(content: Content) -> RemoteFile:
    """Open what `content` is made with."""
    return RemoteFile(cast(Any, content), "f", format_digest(blake3_digest(content.sent)), len(content.sent))


def plain(content: Content) -> lading.sync.RemoteFile:
    """Open it as an ordinary file object."""
    return lading.sync.RemoteFile(opened(content))


def changed(data: bytes, at: int) -> bytes:
    """The same with one byte that is wrong."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def to_the_end(read: Callable[[int], bytes]) -> bytes:
    """Read in pieces that are no multiple of anything."""
    return b"".join(iter(lambda: read(70_001), b""))


@pytest.mark.parametrize("name", DATA)
async def test_wrong_bytes_are_refused_however_often_they_are_read(name: str) -> None:
    data = DATA[name]
    content = Content(data)
    async with opened(content) as file:
        content.sent = changed(data, 5)
        for _ in range(3):
            await file.seek(0)
            with pytest.raises(lading.IntegrityError, match="digest"):
                await file.read()
        content.sent = data
        await file.seek(0)
        assert await file.read() == data


async def test_a_short_file_that_came_wrong_is_fetched_again_by_the_next_read() -> None:
    content = Content(SHORT)
    async with opened(content) as file:
        content.sent = changed(SHORT, 5)
        with pytest.raises(lading.IntegrityError):
            await file.read()
        content.sent = SHORT
        assert await file.read() == SHORT


async def test_after_wrong_bytes_nothing_is_read_until_the_file_is_read_from_its_start() -> None:
    content = Content(LONG)
    async with opened(content) as file:
        content.sent = changed(LONG, 5)
        await file.read(len(LONG) - 10)
        for offset in (len(LONG) - 10, len(LONG), 100):
            await file.seek(offset)
            with pytest.raises(lading.IntegrityError):
                # The first time to find out, then because of that.
                await file.read(10)
        content.sent = LONG
        await file.seek(0)
        assert await file.read(10) == LONG[:10]
        assert await file.read() == LONG[10:]


async def test_a_header_that_is_read_again_is_verified_again() -> None:
    content = Content(LONG)
    async with opened(content) as file:
        assert await file.read(10) == LONG[:10]
        await file.seek(len(LONG) // 2)
        await file.read(10)  # so that the header has to be fetched again
        content.sent = changed(LONG, 5)
        await file.seek(0)
        with pytest.raises(lading.IntegrityError):
            await file.read()


@pytest.mark.parametrize("read_bytes", [0, 100])
async def test_a_read_that_fails_half_way_has_read_nothing(read_bytes: int) -> None:
    content = Content(LONG)
    async with opened(content) as file:
        await file.read(read_bytes)
        content.error, content.error_from = lading.Unavailable("gone"), len(LONG) // 2
        with pytest.raises(lading.Unavailable):
            await file.read()
        assert file.tell() == read_bytes
        assert await file.read() == LONG[read_bytes:]


async def test_what_is_read_again_after_a_failure_is_verified_as_it_came_then() -> None:
    content = Content(LONG)
    async with opened(content) as file:
        await file.read(100)
        content.error, content.error_from = lading.Unavailable("gone"), len(LONG) // 2
        with pytest.raises(lading.Unavailable):
            await file.read()
        content.sent = changed(LONG, 300_000)  # which had come right, and was lost with the error
        with pytest.raises(lading.IntegrityError):
            await file.read()


async def test_a_read_that_is_cancelled_half_way_has_read_nothing() -> None:
    content = Content(LONG)
    async with opened(content) as file:
        await file.read(100)
        content.hang_from = len(LONG) // 2
        reading = asyncio.create_task(file.read())
        await asyncio.wait_for(content.waiting.wait(), 60)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert file.tell() == 100
        content.hang_from = len(LONG)
        assert await file.read() == LONG[100:]


@pytest.mark.parametrize("name", DATA)
def test_the_plain_side_refuses_wrong_bytes_however_often_they_are_read(name: str) -> None:
    data = DATA[name]
    content = Content(data)
    with plain(content) as file:
        content.sent = changed(data, 5)
        for _ in range(3):
            file.seek(0)
            with pytest.raises(lading.IntegrityError):
                to_the_end(file.read)
        file.seek(0)
        with pytest.raises(lading.IntegrityError):
            file.readinto(bytearray(len(data)))
        content.sent = data
        file.seek(0)
        assert to_the_end(file.read) == data


def test_the_plain_side_reads_nothing_after_wrong_bytes_until_it_is_back_at_the_start() -> None:
    content = Content(LONG)
    with plain(content) as file:
        content.sent = changed(LONG, 5)
        with pytest.raises(lading.IntegrityError):
            to_the_end(file.read)
        for _ in range(2):
            with pytest.raises(lading.IntegrityError):
                file.read(10)
        file.seek(100)
        with pytest.raises(lading.IntegrityError):
            file.read(10)
        content.sent = LONG
        file.seek(0)
        assert file.read() == LONG


def test_the_plain_side_leaves_nothing_out_after_a_read_that_failed() -> None:
    content = Content(LONG)
    with plain(content) as file:
        assert file.read(10) == LONG[:10]
        content.error, content.error_from = lading.Unavailable("gone"), 1 << 20
        with pytest.raises(lading.Unavailable):
            file.read()
        # The rest of the first mebibyte was in the buffer, and went with the error.
        for read in (file.read, file.readline, file.readlines):
            with pytest.raises(lading.FailedPrecondition, match="Seek"):
                read()
        file.seek(10)
        assert file.read() == LONG[10:]


def test_the_plain_side_reads_on_by_itself_where_nothing_was_lost() -> None:
    content = Content(LONG)
    with plain(content) as file:
        content.error = lading.Unavailable("gone")
        with pytest.raises(lading.Unavailable):
            file.read()
        assert file.read() == LONG
