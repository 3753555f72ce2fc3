"""A server that lies writes nothing outside the root, and gets nothing into it under a name."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

import lading
from lading_format.digest import blake3_digest, format_digest
from lading_proto.ingest.v1 import chunks_pb2, trees_pb2
from tests.support.hostile_server import ANY_DIGEST, HostileServer, Reader, file_entry, message, piece

SMALL = b"small" * 100
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: fetched by itself, and continued
UNSAFE_PATHS = [
    "../x",
    "/abs",
    "a/../../b",
    "C:x",
    "C:/x",
    "a\\..\\b",
    "a//b",
    "a/",
    ".",
    "..",
    "a/./b",
    "x\0y",
    "",
    "x" * 1025,
    ".lading-partial/x",
    ".lading-partial",
]

Pieces = Callable[[bytes], Iterator[chunks_pb2.ReadBlobsResponse]]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory to download to. Fails the test if anything beside it was touched."""
    (tmp_path / "x").write_bytes(b"mine")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(b"mine")
    before = _beside(tmp_path)
    yield tmp_path / "root"
    assert _beside(tmp_path) == before


async def _download(server: HostileServer, root: Path, digest: str = "") -> None:
    policy = lading.RetryPolicy(retry_seconds=0)
    async with lading.IngestClient(server.address, entity="acme", retry=policy) as client:
        await client.download_tree(digest or server.digest, root)


async def test_an_honest_server_is_believed(root: Path) -> None:
    async with HostileServer({"a/f": SMALL, "b": LARGE, "c": b""}) as server:
        await _download(server, root)
    assert _named(root) == {"a/f": SMALL, "b": LARGE, "c": b""}
    assert not (root / ".lading-partial").exists()


@pytest.mark.parametrize("path", UNSAFE_PATHS)
async def test_a_listing_with_an_unsafe_path_is_refused(root: Path, path: str) -> None:
    async with HostileServer(entries=[file_entry(path, SMALL)]) as server:
        with pytest.raises(lading.UnsafePath):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


@pytest.mark.parametrize(
    "paths", [("a", "a"), ("A", "a"), ("a", "a/b"), ("e\u0301", "\u00e9"), ("stra\u00dfe/x", "strasse/y")]
)
async def test_a_listing_whose_paths_collide_is_refused(root: Path, paths: tuple[str, str]) -> None:
    entries = [file_entry(path, SMALL) for path in sorted(paths, key=str.encode)]
    async with HostileServer(entries=entries) as server:
        with pytest.raises(lading.UnsafePath):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


async def test_an_unsorted_listing_is_refused(root: Path) -> None:
    async with HostileServer(entries=[file_entry("b"), file_entry("a")]) as server:
        with pytest.raises(lading.IntegrityError, match="should come before"):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


async def test_the_listing_of_another_tree_is_refused(root: Path) -> None:
    async with HostileServer({"a": SMALL}) as server:
        with pytest.raises(lading.IntegrityError, match="listing of"):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.ClearField("size_bytes"),
        lambda entry: setattr(entry, "blob_digest", "b3:xyz"),
        lambda entry: setattr(entry, "kind", trees_pb2.ENTRY_KIND_DIRECTORY),
    ],
)
async def test_a_malformed_line_is_refused(root: Path, change: Callable[[trees_pb2.ListedEntry], None]) -> None:
    entry = file_entry("a", SMALL)
    change(entry)
    async with HostileServer(entries=[entry]) as server:
        with pytest.raises(lading.IntegrityError):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


async def test_one_digest_with_two_sizes_is_refused(root: Path) -> None:
    longer = file_entry("b", SMALL)
    longer.size_bytes += 1
    async with HostileServer(entries=[file_entry("a", SMALL), longer]) as server:
        with pytest.raises(lading.IntegrityError, match="two sizes"):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


@pytest.mark.parametrize("tokens", [itertools.repeat("same"), map(str, itertools.count())])
async def test_pages_without_end_are_given_up(root: Path, tokens: Iterator[str]) -> None:
    server = HostileServer(lister=lambda request: trees_pb2.ListTreeResponse(next_page_token=next(tokens)))
    async with server:
        with pytest.raises(lading.Incompatible, match="without end"):
            await _download(server, root, ANY_DIGEST)
    assert _is_untouched(root)


def _wrong_bytes(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data[:-1] + b"!", last=True))


def _short(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data[:-1], last=True))


def _ended_early(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data[:-1]))


def _nothing(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield from ()


def _too_long(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data + b"!", last=True))


def _endless_bytes(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    for offset in itertools.count(0, 100):
        yield message(piece(b"x" * 100, offset=offset))


def _endless_empty_pieces(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield from itertools.repeat(message(piece(b"")))


def _endless_empty_messages(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield from itertools.repeat(message())


def _other_range(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data, index=7, last=True))


def _other_offset(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data[10:], offset=10, last=True))


def _the_same_again(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
    yield message(piece(data[:10]))
    yield message(piece(data[:10]))


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    "pieces",
    [
        _wrong_bytes,
        _short,
        _ended_early,
        _nothing,
        _too_long,
        _endless_bytes,
        _endless_empty_pieces,
        _endless_empty_messages,
        _other_range,
        _other_offset,
        _the_same_again,
    ],
)
async def test_bytes_that_were_not_asked_for_get_no_name(root: Path, pieces: Pieces, content: bytes) -> None:
    async with HostileServer({"a/f": content}, reader=_reader(pieces, content)) as server:
        with pytest.raises(lading.IntegrityError):
            await _download(server, root)
    assert _named(root) == {}


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_pieces_after_the_end_are_refused(root: Path, content: bytes) -> None:
    def pieces(data: bytes) -> Iterator[chunks_pb2.ReadBlobsResponse]:
        yield message(piece(data, last=True))
        yield message(piece(b"more", index=1, last=True))

    async with HostileServer({"f": content}, reader=_reader(pieces, content)) as server:
        with pytest.raises(lading.IntegrityError, match="out of order"):
            await _download(server, root)


async def test_wrong_bytes_of_a_large_file_are_not_kept(root: Path) -> None:
    async with HostileServer({"f": LARGE}, reader=_reader(_wrong_bytes, LARGE)) as server:
        with pytest.raises(lading.IntegrityError):
            await _download(server, root)
    assert not (root / ".lading-partial").exists()


async def test_a_blob_that_the_server_lost_is_named(root: Path) -> None:
    lost = chunks_pb2.BlobPiece(
        last=True, error=chunks_pb2.ItemError(code=5, reason="BLOB_NOT_FOUND", message="no such blob")
    )
    async with HostileServer({"a/f": SMALL}, reader=_reader(lambda _: iter([message(lost)]), SMALL)) as server:
        with pytest.raises(lading.NotFound, match="a/f"):
            await _download(server, root)
    assert _named(root) == {}


async def test_a_directory_that_is_a_link_is_refused(root: Path) -> None:
    _link(root, "a", "../outside")
    async with HostileServer({"a/f": SMALL}) as server:
        with pytest.raises(lading.UnsafePath, match="symbolic link"):
            await _download(server, root)


async def test_a_file_that_is_a_link_is_refused(root: Path) -> None:
    _link(root, "f", "../outside/f")
    async with HostileServer({"f": SMALL}) as server:
        with pytest.raises(lading.UnsafePath, match="symbolic link"):
            await _download(server, root)


async def test_a_partial_directory_that_is_a_link_is_refused(root: Path) -> None:
    _link(root, ".lading-partial", "../outside")
    async with HostileServer({"f": LARGE}) as server:
        with pytest.raises(lading.UnsafePath, match="symbolic link"):
            await _download(server, root)


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
async def test_an_unfinished_file_that_is_a_link_is_refused(root: Path, kind: str) -> None:
    partial = root / ".lading-partial" / blake3_digest(LARGE).hex()
    partial.parent.mkdir(parents=True)
    outside = root.parent / "outside" / "f"
    if kind == "symbolic":
        partial.symlink_to(outside)
    else:
        os.link(outside, partial)
    async with HostileServer({"f": LARGE}) as server:
        with pytest.raises(lading.UnsafePath):
            await _download(server, root)


async def test_a_pipe_in_a_files_place_is_refused(root: Path) -> None:
    os.mkdir(root)
    os.mkfifo(root / "f")
    async with HostileServer({"f": b""}) as server:
        with pytest.raises(lading.UnsafePath):
            await _download(server, root)


async def test_a_directory_in_a_files_place_is_left_alone(root: Path) -> None:
    (root / "f").mkdir(parents=True)
    async with HostileServer({"f": SMALL}) as server:
        with pytest.raises(lading.AlreadyExists):
            await _download(server, root)
    assert (root / "f").is_dir()


async def test_a_damaged_unfinished_file_is_started_over_once(root: Path) -> None:
    partial = root / ".lading-partial" / blake3_digest(LARGE).hex()
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"!" * 1000)
    async with HostileServer({"f": LARGE}) as server:
        await _download(server, root)
        offsets = [request.ranges[0].offset_bytes for request in server.read_requests]
    assert offsets == [1000, 0]
    assert _named(root) == {"f": LARGE}


async def test_wrong_bytes_of_a_single_file_raise_after_the_last_of_them() -> None:
    received: list[bytes] = []

    async def read(client: lading.IngestClient) -> None:
        async for data in client.read_file(format_digest(blake3_digest(SMALL))):
            received.append(data)  # noqa: PERF401 - what came before the error counts

    async with HostileServer({"f": SMALL}) as server, lading.IngestClient(server.address, entity="acme") as client:
        with pytest.raises(lading.IntegrityError):
            await read(client)
    assert b"".join(received) == SMALL[::-1]


def _is_untouched(root: Path) -> bool:
    return not root.exists()


def _link(root: Path, name: str, target: str) -> None:
    root.mkdir()
    (root / name).symlink_to(target)


def _reader(pieces: Pieces, content: bytes) -> Reader:
    async def read(request: chunks_pb2.ReadBlobsRequest) -> AsyncIterator[chunks_pb2.ReadBlobsResponse]:
        for response in pieces(content):
            yield response

    return read


def _named(root: Path) -> dict[str, bytes]:
    """Every file below the root that has got its name, and what it holds."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".lading-partial" not in path.parts
    }


def _beside(directory: Path) -> dict[str, bytes]:
    """Everything in a directory but below its `root`."""
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
        if path.relative_to(directory).parts[0] != "root"
    }
