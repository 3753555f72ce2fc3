"""Files on their way to being committed blobs: reads, and hands each thing to the step that comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from lading._allocator import keep_freed_memory
from lading._errors import IntegrityError, one_error
from lading._limits import Limits
from lading._local_files import LocalFile
from lading._progress import ProgressMeter
from lading._retry import RetryPolicy
from lading._threads import Threads
from lading._transport import MESSAGE_BYTES, Transport
from lading._upload.blobs import Committer, failure
from lading._upload.blocks import Block, Blocks
from lading._upload.chunks import ChunkFlow
from lading._upload.content import DIGEST_BYTES, UploadingFile
from lading._upload.flow import Budget
from lading._upload.read import BLOCK_BYTES, LargeFile, read_again, read_batch
from lading._upload.session import Session
from lading._upload.streamed import STREAM_FROM_BYTES, StreamedCommit
from lading_proto.ingest.v1 import chunks_pb2

# Two messages: gRPC has a copy of one while the next is laid out, and both are freed at about the same time. With one,
# the heap was given back and taken again all the time: 300,000 page faults for 1 GiB instead of 30,000.
_FREED_BYTES = 2 * MESSAGE_BYTES
# Of file data, from reading to acknowledgement: 48 MiB.
_BLOCKS = 6
_READERS = 2
_FILES_PER_BATCH = 1_024
# Files that were read and are not committed, about 1 KiB each beside their data: more than one CommitBlobs call takes,
# so that the next gather while one is answered.
_FILES_AT_ONCE = 16_384
# `missing_chunk_digests` names at most 1,000; so a recipe of many more takes many rounds, each of which must help.
_MISSING_PER_ANSWER = 1_000
_REPAIRS_AT_MOST = 3
# How long the server is given to forget a damaged chunk, the first time, the second and so on.
_FORGET_SECONDS = (0.0, 1.0, 4.0, 15.0)


class BlobUpload:
    """Uploads files until each is a committed blob.

    Invariant: `_uncommitted` counts the files that are not committed; a file whose content another has on its way is
    not counted. Only what is on its way is kept of a file besides its digest, so the memory does not grow with their
    number but by 32 bytes each.
    """

    def __init__(
        self,
        transport: Transport,
        session: Session,
        limits: Limits,
        policy: RetryPolicy,
        meter: ProgressMeter,
        threads: Threads,
    ) -> None:
        self._transport = transport
        self._session = session
        self._limits = limits
        self._policy = policy
        self._meter = meter
        self._threads = threads
        self._blocks = Blocks(_BLOCKS, BLOCK_BYTES)
        self._flow = ChunkFlow(transport, session, limits, policy, meter, self._hand_on)
        self._committer = Committer(transport, session, limits, policy, self._take_result)
        self._places = Budget(_FILES_AT_ONCE)
        self._digests = bytearray()
        self._by_digest: dict[bytes, UploadingFile] = {}
        self._streamed: dict[UploadingFile, StreamedCommit] = {}
        self._uncommitted = 0
        self._reading = _READERS
        self._committed = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def run(self, sources: Iterable[LocalFile], count: int) -> bytearray:
        """Upload `count` files; return their digests, 32 bytes each, in their order."""
        jobs = _jobs(UploadingFile(source, number=number) for number, source in enumerate(sources))
        self._uncommitted = count
        self._digests = bytearray(DIGEST_BYTES * count)
        keep_freed_memory(_FREED_BYTES)
        try:
            with one_error():
                async with self._group as group:
                    self._flow.start(group)
                    group.create_task(self._committer.run())
                    for _ in range(_READERS):
                        group.create_task(self._read(jobs))
                    while self._uncommitted:
                        await self._committed.wait()
                        self._committed.clear()
                    self._flow.close()
                    self._committer.close()
        finally:
            self._blocks.close()
        return self._digests

    async def _read(self, jobs: Iterator[list[UploadingFile]]) -> None:
        for files in jobs:
            await self._places.acquire(len(files))
            if files[0].source.size_bytes > BLOCK_BYTES:
                await self._read_large(files[0])
            else:
                await self._read_batch(files)
        self._reading -= 1
        if not self._reading:
            self._flow.all_submitted()

    async def _read_batch(self, files: list[UploadingFile]) -> None:
        block = await self._blocks.take()
        chunks = await self._threads.run(read_batch, files, block)
        repeated = {file for file in files if self._is_repeated(file)}
        if repeated:
            chunks = [chunk for chunk in chunks if chunk.file not in repeated]
            self._spare(repeated)
        block.hold(sum([len(chunk.data) for chunk in chunks]))
        self._flow.submit(chunks)
        self._hand_on([file for file in files if file not in repeated])

    async def _read_large(self, file: UploadingFile) -> None:
        # What comes next is read and cut while this is hashed.
        with LargeFile(file) as large:
            async with asyncio.TaskGroup() as group:
                cutting = group.create_task(self._cut(large))
                while not file.is_read:
                    block, pieces, are_last = await cutting
                    if not are_last:
                        cutting = group.create_task(self._cut(large))
                    self._flow.submit(await self._threads.run(large.hash, block, pieces, are_last=are_last))
        if self._is_repeated(file) and file not in self._streamed:
            file.is_handed_on = True
            self._count_done(file)
        else:
            self._hand_on([file])

    async def _cut(self, large: LargeFile) -> tuple[Block, list[memoryview], bool]:
        """Return the next pieces of a file, the block that they are in, and whether they are the last."""
        block = await self._blocks.take()
        pieces = await self._threads.run(large.cut, block.memory)
        block.hold(sum([len(piece) for piece in pieces]))
        return block, pieces, large.is_cut

    def _is_repeated(self, file: UploadingFile) -> bool:
        return self._by_digest.setdefault(file.digest, file) is not file

    def _spare(self, files: set[UploadingFile]) -> None:
        """Count files whose content another file of this upload has."""
        for file in files:
            size_bytes = file.source.size_bytes
            self._meter.add(bytes_done=size_bytes, bytes_deduplicated=size_bytes)
            self._count_done(file)

    def _hand_on(self, files: Sequence[UploadingFile]) -> None:
        """Commit those that are durable; let those that are large be committed as they grow."""
        ready: list[UploadingFile] = []
        for file in files:
            if file.is_handed_on:
                continue
            streamed = self._streamed.get(file)
            if streamed is not None:
                streamed.advance()
            elif file.is_durable:
                file.is_handed_on = True
                ready.append(file)
            elif file.sent_chunks and file.source.size_bytes >= STREAM_FROM_BYTES and not file.repairs:
                self._stream(file)
        self._committer.commit(ready)

    def _stream(self, file: UploadingFile) -> None:
        streamed = StreamedCommit(file, self._transport, self._session, self._take_result, self._take_broken)
        self._streamed[file] = streamed
        self._group.create_task(streamed.run())

    def _take_broken(self, file: UploadingFile) -> None:
        del self._streamed[file]
        self._hand_on([file])

    def _take_result(self, file: UploadingFile, result: chunks_pb2.BlobResult) -> None:
        self._streamed.pop(file, None)
        if result.outcome != chunks_pb2.BLOB_OUTCOME_FAILED:
            self._count_done(file)
            return
        file.repairs += 1
        if result.error.reason == "MISSING_CHUNKS":
            allowed = _REPAIRS_AT_MOST + file.chunk_count // _MISSING_PER_ANSWER
            # None is named where their pack was given up while the file was committed: asking for all finds out.
            missing = set(result.missing_chunk_digests) or _all_chunks(file)
            pause_seconds = 0.0
        elif result.error.reason == "CORRUPT_RECORD":
            # Which chunk is damaged is not said. The server looks at it once more and then forgets it, beside its other
            # work; from then on asking for all finds it missing.
            allowed, missing = len(_FORGET_SECONDS), _all_chunks(file)
            pause_seconds = _FORGET_SECONDS[min(file.repairs, allowed) - 1]
        else:
            raise failure(file, result)
        if file.repairs > allowed:
            raise failure(file, result)
        self._group.create_task(self._repair(file, missing, pause_seconds))

    async def _repair(self, file: UploadingFile, missing: set[bytes], pause_seconds: float) -> None:
        """Read chunks again that the server does not have any more, and commit the file when they are there."""
        if pause_seconds:
            await self._policy.sleep(pause_seconds)
        wanted = [(index, offset, size, digest) for index, offset, size, digest in file.ranges() if digest in missing]
        if not wanted:
            raise IntegrityError(f"The server misses chunks that {file.source.location!r} does not have.")
        file.unsettled += len(wanted)
        file.is_handed_on = False
        for index, offset, size_bytes, digest in wanted:
            block = await self._blocks.take()
            chunk = await self._threads.run(read_again, file, index, offset, size_bytes, digest, block)
            block.hold(size_bytes)
            self._flow.submit([chunk])

    def _count_done(self, file: UploadingFile) -> None:
        at = DIGEST_BYTES * file.number
        self._digests[at : at + DIGEST_BYTES] = file.digest
        if self._by_digest.get(file.digest) is file:
            del self._by_digest[file.digest]
        self._places.release(1)
        self._meter.add(files_done=1, files_deduplicated=int(not file.sent_chunks))
        self._uncommitted -= 1
        if not self._uncommitted:
            self._committed.set()


def _all_chunks(file: UploadingFile) -> set[bytes]:
    return {digest for _, _, _, digest in file.ranges()}


def _jobs(files: Iterable[UploadingFile]) -> Iterator[list[UploadingFile]]:
    """Yield files that one thread reads in one go: many small ones, or one that is larger than a block."""
    batch: list[UploadingFile] = []
    batch_bytes = 0
    for file in files:
        size_bytes = file.source.size_bytes
        if size_bytes > BLOCK_BYTES:
            yield [file]
            continue
        if batch and (batch_bytes + size_bytes > BLOCK_BYTES or len(batch) >= _FILES_PER_BATCH):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(file)
        batch_bytes += size_bytes
    if batch:
        yield batch
