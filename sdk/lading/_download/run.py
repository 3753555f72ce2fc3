"""One download, from a tree's digest to files in a directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from lading._allocator import keep_freed_memory
from lading._cache.taking import batches
from lading._cache.transfer import Transfer
from lading._download.existing import Candidate, find_candidates, jobs, keep_right_ones
from lading._download.large import LargeFile
from lading._download.plan import Wanted
from lading._download.planning import Planned
from lading._download.small import SMALL_AT_MOST_BYTES, SmallFiles, wrong_bytes
from lading._download.wire import ReceivedPiece, decode_pieces
from lading._errors import IntegrityError, LadingError, one_error
from lading._files import SafeRoot
from lading._limits import Limits
from lading._model import DownloadResult, StrPath
from lading._progress import ProgressCallback, ProgressMeter
from lading._retry import RetryPolicy
from lading._threads import Threads
from lading._transport import BULK_LANES, MESSAGE_BYTES, STALL_SECONDS, Stream, Transport
from lading_format.digest import blake3_digest
from lading_proto.ingest.v1 import chunks_pb2

# Of one stream of small files: some messages long, so that its start costs nothing, and cheap to repeat.
_BYTES_PER_STREAM = 32 << 20

T = TypeVar("T")


async def download(
    transport: Transport,
    entity: str,
    limits: Callable[[], Awaitable[Limits]],
    policy: RetryPolicy,
    planned: Planned,
    root: StrPath,
    on_progress: ProgressCallback | None,
    cache: Transfer | None,
    threads: Threads,
) -> DownloadResult:
    """Download what was planned. See Content.download_tree."""
    plan, wanted = planned
    meter = ProgressMeter(on_progress, bytes_total=plan.size_bytes, files_total=plan.file_count)
    with SafeRoot(root) as safe_root:
        fetch = _Fetch(transport, entity, limits, policy, safe_root, meter, threads, cache)
        await fetch.run(wanted)
    return DownloadResult(Path(root), tuple(plan.references), meter.finish())


class _Fetch:
    """Brings blobs to where they are wanted."""

    def __init__(
        self,
        transport: Transport,
        entity: str,
        limits: Callable[[], Awaitable[Limits]],
        policy: RetryPolicy,
        root: SafeRoot,
        meter: ProgressMeter,
        threads: Threads,
        cache: Transfer | None,
    ) -> None:
        self._transport = transport
        self._entity = entity
        self._limits = limits
        self._policy = policy
        self._root = root
        self._meter = meter
        self._threads = threads
        self._cache = cache

    async def run(self, wanted: Sequence[Wanted]) -> None:
        """Keep what is right already, take what the cache has, fetch the rest."""
        if not self._root.is_empty:
            await self._keep_existing(wanted)
        missing = [blob for blob in wanted if blob.targets]
        if not missing:
            return
        self._root.open_partial()
        await self._threads.run(_write_empty, self._root, [blob for blob in missing if not blob.size_bytes])
        for blob in missing:
            if not blob.size_bytes:
                self._meter.add(files_done=len(blob.targets))
        missing = [blob for blob in missing if blob.size_bytes]
        if self._cache is not None:
            missing = await self._take_cached(missing, self._cache)
        if not missing:
            return
        todo = self._jobs(missing, await self._limits())
        # With twice as much, a download held 257 MB on a machine of 32 processors, and 145 so.
        keep_freed_memory(MESSAGE_BYTES)
        with one_error():
            async with asyncio.TaskGroup() as group:
                for lane in range(BULK_LANES):
                    group.create_task(self._work(todo, lane))

    async def _keep_existing(self, wanted: Sequence[Wanted]) -> None:
        batches = jobs(await self._threads.run(find_candidates, self._root, wanted))
        kept: set[str] = set()

        async def work() -> None:
            for batch in batches:
                right = await self._threads.run(keep_right_ones, self._root, batch, self._threads.stop)
                kept.update([target.path for _, target in right])
                self._count_kept(right)

        with one_error():
            async with asyncio.TaskGroup() as group:
                for _ in range(self._threads.count):
                    group.create_task(work())
        for blob in wanted if kept else ():
            blob.targets = [target for target in blob.targets if target.path not in kept]

    async def _take_cached(self, missing: Sequence[Wanted], cache: Transfer) -> list[Wanted]:
        """Write what the cache has; return the rest."""
        jobs_left = batches(missing)
        taken: set[bytes] = set()

        async def work() -> None:
            for batch in jobs_left:
                given = await self._threads.run(cache.give, self._root, batch)
                taken.update(given)
                self._count_taken([blob for blob in batch if blob.digest in given])

        with one_error():
            async with asyncio.TaskGroup() as group:
                for _ in range(self._threads.count):
                    group.create_task(work())
        return [blob for blob in missing if blob.digest not in taken]

    def _count_taken(self, blobs: Sequence[Wanted]) -> None:
        files = sum([len(blob.targets) for blob in blobs])
        taken_bytes = sum([blob.size_bytes * len(blob.targets) for blob in blobs])
        self._meter.add(
            bytes_done=taken_bytes, bytes_deduplicated=taken_bytes, files_done=files, files_deduplicated=files
        )

    def _count_kept(self, right: Sequence[Candidate]) -> None:
        kept_bytes = sum([blob.size_bytes for blob, _ in right])
        self._meter.add(
            bytes_done=kept_bytes, bytes_deduplicated=kept_bytes, files_done=len(right), files_deduplicated=len(right)
        )

    def _jobs(self, wanted: Sequence[Wanted], limits: Limits) -> Iterator[list[Wanted]]:
        """Yield what one stream is to bring: many small files, or one large."""
        batch: list[Wanted] = []
        batch_bytes = 0
        for blob in wanted:
            if blob.size_bytes > SMALL_AT_MOST_BYTES:
                yield [blob]
                continue
            batch.append(blob)
            batch_bytes += blob.size_bytes
            if batch_bytes >= _BYTES_PER_STREAM or len(batch) >= limits.max_ranges_per_call:
                yield batch
                batch, batch_bytes = [], 0
        if batch:
            yield batch

    async def _work(self, todo: Iterator[list[Wanted]], lane: int) -> None:
        for blobs in todo:
            if blobs[0].size_bytes > SMALL_AT_MOST_BYTES:
                await self._fetch_large(blobs[0], lane)
            else:
                await self._fetch_small(blobs, lane)

    async def _fetch_small(self, blobs: list[Wanted], lane: int) -> None:
        attempts = self._policy.start()
        missing = {blob.digest: blob for blob in blobs}

        def count(written: list[Wanted]) -> None:
            attempts.progress()
            for blob in written:
                del missing[blob.digest]
                self._count_fetched(blob)

        while missing:
            files = SmallFiles(self._root, list(missing.values()), self._cache)
            ranges = [
                chunks_pb2.BlobRange(blob_digest=digest, length_bytes=b.size_bytes) for digest, b in missing.items()
            ]
            try:
                await self._stream(ranges, lane, files.take, count)
            except LadingError as error:
                await attempts.pause(error)
                continue
            if not files.is_complete:
                raise _short_stream(self._transport.target)

    async def _fetch_large(self, blob: Wanted, lane: int) -> None:
        file = LargeFile(self._root, blob, self._cache)
        keep = True
        try:
            await self._threads.run(file.open)
            await self._threads.run(file.hash_existing, self._threads.stop)
            existing_bytes = file.size_bytes
            self._meter.add(bytes_done=existing_bytes, bytes_deduplicated=existing_bytes)
            await self._fetch_rest(file, blob, lane)
            finished = await self._threads.run(file.finish)
            if not finished and file.was_continued:
                # What an earlier download left is the likelier culprit.
                self._meter.add(bytes_done=-file.size_bytes, bytes_deduplicated=-existing_bytes)
                await self._threads.run(file.restart)
                await self._fetch_rest(file, blob, lane)
                finished = await self._threads.run(file.finish)
            if not finished:
                keep = False
                raise wrong_bytes(blob)
        finally:
            file.close(keep=keep)
        copies = len(blob.targets) - 1
        self._meter.add(
            bytes_done=copies * blob.size_bytes,
            bytes_deduplicated=copies * blob.size_bytes,
            files_done=1 + copies,
            files_deduplicated=copies,
        )

    async def _fetch_rest(self, file: LargeFile, blob: Wanted, lane: int) -> None:
        attempts = self._policy.start()

        def count(taken_bytes: int) -> None:
            attempts.progress()
            self._meter.add(bytes_done=taken_bytes, bytes_sent=taken_bytes)

        while not file.is_complete:
            file.begin_stream()
            rest = chunks_pb2.BlobRange(
                blob_digest=blob.digest,
                offset_bytes=file.size_bytes,
                length_bytes=blob.size_bytes - file.size_bytes,
            )
            try:
                await self._stream([rest], lane, file.take, count)
            except LadingError as error:
                await attempts.pause(error)
                continue
            if not file.is_complete:
                raise _short_stream(self._transport.target)

    async def _stream(
        self,
        ranges: Sequence[chunks_pb2.BlobRange],
        lane: int,
        take: Callable[[list[ReceivedPiece]], T],
        on_taken: Callable[[T], None],
    ) -> None:
        """Read ranges; while a thread takes one message, the next is read."""
        request = chunks_pb2.ReadBlobsRequest(entity=self._entity, ranges=ranges)
        stream: Stream[chunks_pb2.ReadBlobsRequest, list[ReceivedPiece]]
        stream = self._transport.stream(self._transport.read_blobs(lane, request, decode_pieces))
        reading = asyncio.create_task(stream.read(STALL_SECONDS))
        try:
            while (message := await reading) is not None:
                reading = asyncio.create_task(stream.read(STALL_SECONDS))
                on_taken(await self._threads.run(take, message))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            stream.cancel()

    def _count_fetched(self, blob: Wanted) -> None:
        copies = len(blob.targets) - 1
        self._meter.add(
            bytes_done=blob.size_bytes * (1 + copies),
            bytes_deduplicated=blob.size_bytes * copies,
            files_done=1 + copies,
            files_deduplicated=copies,
            bytes_sent=blob.size_bytes,
        )


def _write_empty(root: SafeRoot, blobs: Sequence[Wanted]) -> None:
    with root.cursor() as cursor:
        for blob in blobs:
            if blake3_digest(b"") != blob.digest:
                raise wrong_bytes(blob)
            for target in blob.targets:
                cursor.write(b"", target.path, executable=target.executable)


def _short_stream(target: str) -> IntegrityError:
    return IntegrityError(f"{target} ended a stream well without sending all that was asked for.")
