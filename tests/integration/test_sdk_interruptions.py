"""Transfers that are interrupted, by whoever: what was done counts, and nothing half-done has a name."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

import pytest

import lading
from lading_format.digest import blake3_digest, format_digest
from tests.support.server import ServerProcess

_RANDOM = random.Random(5)
SOON = lading.RetryPolicy(retry_seconds=30, first_seconds=0.01, longest_seconds=0.1)
FILES = {"big": _RANDOM.randbytes(30 << 20), **{f"s/{number}": _RANDOM.randbytes(9000) for number in range(2000)}}
SIZE_BYTES = sum(map(len, FILES.values()))


class Proxy:
    """Passes bytes on, and cuts its connections each time that so many have passed. An async context manager."""

    def __init__(self, target: str, *, cut_after_bytes: int, cuts: int) -> None:
        self.cuts_left = cuts
        self.address = ""
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._cut_after_bytes = cut_after_bytes
        self._passed_bytes = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
            self._writers |= {writer, server_writer}
            await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self._passed_bytes += len(data)
                if self.cuts_left and self._passed_bytes >= self._cut_after_bytes:
                    self._passed_bytes = 0
                    self.cuts_left -= 1
                    self._cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of one large file and many small ones."""
    for path, data in FILES.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    return tmp_path / "in"


@pytest.fixture
def entity(request: pytest.FixtureRequest) -> str:
    """An entity of the test's own."""
    return f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"


@pytest.fixture
async def client(shared_server: ServerProcess, entity: str) -> AsyncIterator[lading.IngestClient]:
    """A client with a connection that nobody cuts."""
    async with lading.IngestClient(shared_server.target, entity=entity) as opened:
        yield opened


async def test_an_upload_over_a_connection_that_breaks_sends_little_twice(
    shared_server: ServerProcess, entity: str, client: lading.IngestClient, source: Path, tmp_path: Path
) -> None:
    async with Proxy(shared_server.target, cut_after_bytes=10 << 20, cuts=3) as proxy:
        async with lading.IngestClient(proxy.address, entity=entity, retry=SOON) as broken:
            result = await broken.upload_tree(source)
        assert proxy.cuts_left == 0
    assert result.transfer.bytes_done == SIZE_BYTES
    # Of what was on its way at a cut: at most what may be unacknowledged.
    assert SIZE_BYTES <= result.transfer.bytes_sent < 2 * SIZE_BYTES
    await client.download_tree(result.tree.digest, tmp_path / "out")
    assert _read(tmp_path / "out") == FILES


async def test_a_download_over_a_connection_that_breaks_continues(
    shared_server: ServerProcess, entity: str, client: lading.IngestClient, source: Path, tmp_path: Path
) -> None:
    digest = (await client.upload_tree(source)).tree.digest
    async with Proxy(shared_server.target, cut_after_bytes=10 << 20, cuts=3) as proxy:
        async with lading.IngestClient(proxy.address, entity=entity, retry=SOON) as broken:
            result = await broken.download_tree(digest, tmp_path / "out")
        assert proxy.cuts_left == 0
    assert _read(tmp_path / "out") == FILES
    assert result.transfer.bytes_done == SIZE_BYTES
    assert not (tmp_path / "out" / ".lading-partial").exists()


async def test_single_files_survive_a_connection_that_breaks(
    shared_server: ServerProcess, entity: str, source: Path
) -> None:
    digest = format_digest(blake3_digest(FILES["big"]))
    async with Proxy(shared_server.target, cut_after_bytes=12 << 20, cuts=4) as proxy:
        async with lading.IngestClient(proxy.address, entity=entity, retry=SOON) as broken:
            info = await broken.upload_file(source / "big")
            assert info.digest == digest
            assert b"".join([data async for data in broken.read_file(digest)]) == FILES["big"]
        assert proxy.cuts_left == 0


class StopError(Exception):
    """What a progress callback stops a transfer with."""


def _stop_at(size_bytes: int) -> lading.ProgressCallback:
    def stop(progress: lading.Progress) -> None:
        if progress.bytes_done >= size_bytes:
            raise StopError

    return stop


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told at every step, so that a test can stop a transfer where it likes."""
    monkeypatch.setattr("lading._progress._REPORT_EVERY_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_an_interrupted_upload_sends_only_what_is_missing(
    client: lading.IngestClient, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else all of it would be on its way, and arrive, before the callback ends the upload.
    monkeypatch.setattr("lading._upload.files._BLOCKS", 1)
    with pytest.raises(StopError):
        await client.upload_tree(source, on_progress=_stop_at(SIZE_BYTES // 2))
    result = await client.upload_tree(source)
    assert 0 < result.transfer.bytes_sent <= SIZE_BYTES // 2 + (64 << 10)
    assert result.transfer.bytes_done == SIZE_BYTES


@pytest.mark.usefixtures("impatient")
async def test_an_interrupted_download_continues_from_what_it_has(
    client: lading.IngestClient, source: Path, tmp_path: Path
) -> None:
    digest = (await client.upload_tree(source)).tree.digest
    with pytest.raises(StopError):
        await client.download_tree(digest, tmp_path / "out", on_progress=_stop_at(SIZE_BYTES // 2))
    left = _read(tmp_path / "out")
    partial = {path.removeprefix(".lading-partial/") for path in left if path.startswith(".lading-partial/")}
    assert partial <= {blake3_digest(FILES["big"]).hex()}
    assert {
        path: data for path, data in left.items() if not path.startswith(".lading-partial/")
    }.items() <= FILES.items()
    result = await client.download_tree(digest, tmp_path / "out")
    assert result.transfer.bytes_deduplicated >= SIZE_BYTES // 2 - (8 << 20)
    assert result.transfer.bytes_sent + result.transfer.bytes_deduplicated == SIZE_BYTES
    assert _read(tmp_path / "out") == FILES


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
async def test_a_cancelled_transfer_ends_every_task(
    client: lading.IngestClient, source: Path, tmp_path: Path, part: float
) -> None:
    """Also in the middle of a thread's work: what it works on is closed only after it."""
    digest = (await client.upload_tree(source)).tree.digest
    before = _tasks()
    reached = asyncio.Event()

    def reach(progress: lading.Progress) -> None:
        if progress.bytes_done >= SIZE_BYTES * part:
            reached.set()

    transfers = [
        asyncio.create_task(client.download_tree(digest, tmp_path / "out", on_progress=reach)),
        asyncio.create_task(client.upload_tree(source, on_progress=reach)),
    ]
    await reached.wait()
    for transfer in transfers:
        transfer.cancel()
    results = await asyncio.gather(*transfers, return_exceptions=True)
    assert all(
        isinstance(result, asyncio.CancelledError | lading.DownloadResult | lading.UploadResult) for result in results
    )
    assert _tasks() == before
    assert not [path for path in _read(tmp_path / "out") if path.endswith(".new")]


async def test_two_downloads_into_one_directory_do_not_harm_each_other(
    client: lading.IngestClient, source: Path, tmp_path: Path
) -> None:
    digest = (await client.upload_tree(source)).tree.digest
    await asyncio.gather(*[client.download_tree(digest, tmp_path / "out") for _ in range(3)])
    assert _read(tmp_path / "out") == FILES
    assert not (tmp_path / "out" / ".lading-partial").exists()


async def test_two_uploads_of_one_directory_make_one_tree(client: lading.IngestClient, source: Path) -> None:
    results = await asyncio.gather(*[client.upload_tree(source) for _ in range(3)])
    assert len({result.tree.digest for result in results}) == 1


def _tasks() -> set[asyncio.Task[object]]:
    """Every task but those in which gRPC waits for the end of a call, cancelled or not."""
    return {task for task in asyncio.all_tasks() if "_AioCall" not in getattr(task.get_coro(), "__qualname__", "")}


def _read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
