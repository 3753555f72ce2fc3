"""The budget of an upload: each step of it alone, in microseconds per MiB and per file. `make bench-budget`.

The code of each step is the product's, run over the inputs `big` (its first 256 MiB) and `tiny`, one step after the
other: what the whole path cannot beat on one core, and where its time goes. The processor's time is that of both
processes where there are two; on a machine with other work it is the figure to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import grpc

from lading._local_files import LocalFile
from lading._scan import scan_directory
from lading._upload.blocks import Block, Blocks
from lading._upload.content import Chunk, UploadingFile
from lading._upload.wire import encode_batch
from lading_format.chunking import SMALL_FILE_BYTES, FileCutter
from lading_format.digest import blake3_digest, new_hasher, xxh3_64
from lading_format.tree import FileEntry
from lading_server.common.ids import uuid7
from lading_server.ingest.domain.blobs import RecipePiece
from lading_server.ingest.domain.chunks import IncomingChunk, check_chunk
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.recipes import ChunkSpan
from lading_server.ingest.index.recorder import GroupRecorder
from lading_server.ingest.packs.local import LocalPackFile
from lading_server.ingest.service.bulk_wire import LargeBatch, decode_put_chunks
from tests.bench.sides import processor_seconds
from tests.bench.workloads import make_workloads
from tests.support.content import opened_ingest
from tests.support.registry import PinsInMemory, commit, opened_registry

_MIB = 1 << 20
_MESSAGE_BYTES = 3 * _MIB
_METHOD = "/budget.Null/Put"
_ENTITY = "acme"


@dataclass
class Row:
    """One step over one workload."""

    workload: str
    step: str
    microseconds_per_mib: float
    microseconds_per_file: float
    processor_microseconds_per_mib: float
    processor_microseconds_per_file: float


@dataclass
class Content:
    """A workload in memory: files, and the chunks of each."""

    name: str
    files: list[LocalFile]
    chunks: list[list[memoryview]]

    @property
    def all_chunks(self) -> list[memoryview]:
        """The chunks of all files, in order."""
        return [chunk for chunks in self.chunks for chunk in chunks]


class Budget:
    """Times steps, and keeps them in the order in which they came."""

    def __init__(self, content: Content) -> None:
        self._workload = content.name
        self._mib = sum(len(chunk) for chunk in content.all_chunks) / _MIB
        self._files = len(content.files)
        self.rows: list[Row] = []

    @contextmanager
    def step(self, name: str, pid: int | None = None) -> Iterator[None]:
        """Time the block; with the processor time of another process too, if one is given."""
        other = processor_seconds(pid) if pid else 0.0
        began, mine = time.perf_counter(), time.process_time()
        yield
        seconds, used = time.perf_counter() - began, time.process_time() - mine
        if pid:
            used += processor_seconds(pid) - other
        self.add(name, seconds, used)

    def add(self, name: str, seconds: float, used_seconds: float) -> None:
        """Keep what a step took."""
        figures = [taken * 1e6 / count for taken in (seconds, used_seconds) for count in (self._mib, self._files)]
        self.rows.append(Row(self._workload, name, *figures))


class Watch:
    """Sums up what the calls of one function take, inside of the product."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.used_seconds = 0.0

    def blocking(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return a blocking function, timed; of the processor, with what its own thread takes."""

        def timed(*args: object, **kwargs: object) -> object:
            began, mine = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began
                self.used_seconds += time.thread_time() - mine

        return timed

    def waiting(self, function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        """Return a coroutine function, timed; of the processor, with what the whole process takes meanwhile."""

        async def timed(*args: object, **kwargs: object) -> object:
            began, mine = time.perf_counter(), time.process_time()
            try:
                return await function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began
                self.used_seconds += time.process_time() - mine

        return timed


def measure(directory: Path, megabytes: int) -> list[Row]:
    """Measure every step over both workloads."""
    inputs = directory / "inputs"
    make_workloads(inputs)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        for name, most_bytes in (("big", megabytes * _MIB), ("tiny", 1 << 40)):
            content = _content(name, inputs / name, most_bytes)
            budget = Budget(content)
            messages = _client_steps(budget, content)
            asyncio.run(_wire_step(budget, messages))
            batches = _decoded(budget, messages)
            del messages
            work = Path(scratch) / name
            work.mkdir()
            asyncio.run(_server_steps(budget, content, batches, work))
            rows += budget.rows
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print the table, as docs/benchmarks.md has it."""
    by_step: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_step.setdefault(row.step, {})[row.workload] = row
    print("| step | big: µs per MiB | of the processor | tiny: µs per file | of the processor |")
    print("|---|---|---|---|---|")
    for step, found in by_step.items():
        big, tiny = found["big"], found["tiny"]
        print(
            f"| {step} | {big.microseconds_per_mib:.0f} | {big.processor_microseconds_per_mib:.0f} "
            f"| {tiny.microseconds_per_file:.0f} | {tiny.processor_microseconds_per_file:.0f} |"
        )


def _content(name: str, root: Path, most_bytes: int) -> Content:
    files = list(scan_directory(root).files)
    return Content(name, files, [list(_cut(file, most_bytes)) for file in files])


def _cut(file: LocalFile, most_bytes: int) -> Iterator[memoryview]:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        cutter = FileCutter(descriptor, min(file.size_bytes, most_bytes))
        while cutter.left_bytes:
            yield from cutter.cut(memoryview(bytearray(min(cutter.left_bytes, 8 * _MIB))))
    finally:
        os.close(descriptor)


def _client_steps(budget: Budget, content: Content) -> list[bytes]:
    """Time what the client does with the bytes; return the messages of PutChunks."""
    sizes = [sum(map(len, chunks)) for chunks in content.chunks]
    with budget.step("read (open, read, close)"):
        for file, size_bytes in zip(content.files, sizes, strict=True):
            descriptor = os.open(file, os.O_RDONLY)
            for offset in range(0, size_bytes, 8 * _MIB):
                os.pread(descriptor, min(8 * _MIB, size_bytes - offset), offset)
            os.close(descriptor)
    with budget.step("read and cut"):
        for file, size_bytes in zip(content.files, sizes, strict=True):
            for _ in _cut(file, size_bytes):
                pass
    with budget.step("hash the chunks"):
        digests = [[blake3_digest(chunk) for chunk in chunks] for chunks in content.chunks]
    with budget.step("hash the files of several chunks"):
        for size_bytes, chunks in zip(sizes, content.chunks, strict=True):
            if size_bytes > SMALL_FILE_BYTES:
                hasher = new_hasher()
                for chunk in chunks:
                    hasher.update(chunk)
                hasher.digest()
    with budget.step("XXH3"):
        checks = [[xxh3_64(chunk) for chunk in chunks] for chunks in content.chunks]
    block = Block(Blocks(0, 0), memoryview(b""))
    ready = [
        Chunk(UploadingFile(file), index, digest, xxh3, data, block)
        for file, *of_file in zip(content.files, digests, checks, content.chunks, strict=True)
        for index, (digest, xxh3, data) in enumerate(zip(*of_file, strict=True))
    ]
    with budget.step("encode"):
        return [encode_batch(batch) for batch in _batches(ready)]


def _batches(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    batch: list[Chunk] = []
    batch_bytes = 0
    for chunk in chunks:
        if batch and batch_bytes + len(chunk.data) > _MESSAGE_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(chunk)
        batch_bytes += len(chunk.data)
    yield batch


async def _wire_step(budget: Budget, messages: Sequence[bytes]) -> None:
    """One stream of the messages to a server that looks at none of them."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_null_server, args=(there,), daemon=True)
    process.start()
    try:
        port = await asyncio.to_thread(here.recv)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            call: grpc.aio.StreamUnaryCall[bytes, bytes] = channel.stream_unary(_METHOD)()
            with budget.step("gRPC, one stream, both sides", process.pid):
                for message in messages:
                    await call.write(message)
                await call.done_writing()
                await call
    finally:
        process.kill()
        process.join()


def _null_server(pipe: Connection) -> None:
    asyncio.run(_serve_nothing(pipe))


async def _serve_nothing(pipe: Connection) -> None:
    async def put(requests: AsyncIterator[bytes], _: object) -> bytes:
        async for _ in requests:
            pass
        return b""

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 * _MIB)])
    service, method = _METHOD[1:].split("/")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {method: grpc.stream_unary_rpc_method_handler(put)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


def _decoded(budget: Budget, messages: Sequence[bytes]) -> list[list[IncomingChunk]]:
    with budget.step("decode"):
        decoded = [decode_put_chunks(message) for message in messages]
        batches = [
            one.chunks
            if isinstance(one, LargeBatch)
            else [IncomingChunk(c.digest, c.xxh3, c.size_bytes, c.data) for c in one.batch.chunks]
            for one in decoded
        ]
    with budget.step("verify (XXH3 and BLAKE3)"):
        for batch in batches:
            for chunk in batch:
                check_chunk(chunk, 2 * _MIB)
    return batches


async def _server_steps(
    budget: Budget, content: Content, batches: Sequence[Sequence[IncomingChunk]], work: Path
) -> None:
    """Store everything as the server does, in one process and without gRPC, and time the steps inside."""
    async with opened_ingest("sqlite", work) as ingest:
        await _put_steps(budget, ingest, batches)
        session = await ingest.open_session(_ENTITY)
        pieces, entries = _recipes(content)
        intake = await ingest.blob_intake(_ENTITY, session, 0)
        with budget.step("commit the blobs (CommitBlobs)"):
            waiting = iter(pieces)
            while part := list(islice(waiting, 4096)):
                await intake.take(part)
            intake.finish()
        async with ingest.tree_writer(_ENTITY, session, 0) as writer:
            with budget.step("PutTree"):
                await writer.add(entries)
                totals, _ = await writer.finish(None)
        with budget.step("pin"):
            await ingest.pins.acquire(_ENTITY, uuid7().bytes, totals.digest)
    promises = PinsInMemory()
    names = work / "names"
    names.mkdir()
    async with opened_registry("sqlite", names, promises) as registry:
        await commit(registry, promises.new_tree())
        tree = promises.new_tree()
        with budget.step("CommitVersion, without the pin"):
            await commit(registry, tree)


async def _put_steps(budget: Budget, ingest: Ingest, batches: Sequence[Sequence[IncomingChunk]]) -> None:
    """One message after the other, each durable before the next; a real stream has many in a group."""
    append, sync, index = Watch(), Watch(), Watch()
    with (
        mock.patch.object(LocalPackFile, "append", append.blocking(LocalPackFile.append)),
        mock.patch.object(LocalPackFile, "sync", sync.blocking(LocalPackFile.sync)),
        mock.patch.object(GroupRecorder, "_write", index.waiting(GroupRecorder._write)),
    ):
        session = await ingest.open_session(_ENTITY)
        async with ingest.chunk_sink(_ENTITY, session, 0) as sink:
            for batch in batches:
                put = await sink.put(batch)
                ingest.committer.flush()
                await put.settled()
                sink.answered(put)
    for name, watch in (("append", append), ("fdatasync", sync), ("index transaction", index)):
        budget.add(name, watch.seconds, watch.used_seconds)


def _recipes(content: Content) -> tuple[list[RecipePiece], list[FileEntry]]:
    pieces, entries = [], []
    for file, chunks in zip(content.files, content.chunks, strict=True):
        hasher = new_hasher()
        for chunk in chunks:
            hasher.update(chunk)
        digest, size_bytes = hasher.digest(), sum(map(len, chunks))
        spans = [ChunkSpan(blake3_digest(chunk), len(chunk)) for chunk in chunks] if len(chunks) > 1 else []
        pieces.append(RecipePiece(digest, size_bytes, spans, False))
        entries.append(FileEntry(file.path, digest, size_bytes, file.executable))
    return pieces, entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".bench"), help="where inputs are, or are made")
    parser.add_argument("--megabytes", type=int, default=256, help="how much of the big file")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    print("load average {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg()))
    rows = measure(options.directory.absolute(), options.megabytes)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
