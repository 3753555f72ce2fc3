"""The methods of IngestService: each names its rule and converts. No rules here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Protocol, TypeAlias

import grpc

from lading_format.digest import parse_digest, split_digests
from lading_format.tree import ReferenceEntry
from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, files_pb2, ingest_pb2_grpc, trees_pb2, usage_pb2
from lading_server.common.callers import current_principal
from lading_server.common.drain import Drain
from lading_server.common.errors import Draining, IsReference, OutOfSequence
from lading_server.common.one_ahead import one_ahead
from lading_server.common.settings import limits
from lading_server.common.streams import progress, write_with_deadline
from lading_server.ingest.domain.chunks import Acknowledgement, IncomingChunk
from lading_server.ingest.domain.entities import check_entity, check_upload_id, format_session, parse_session
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.uploads import FileUpload, upload_status
from lading_server.ingest.service import convert
from lading_server.ingest.service.bulk_wire import LargeBatch
from lading_server.ingest.service.put_chunks import PutChunksStream

# What a page of entries may take, so that with its own framing it stays within a message of 4 MiB.
_PAGE_BYTES = 3 << 20


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class _UnderSession(Protocol):
    """A request that is made under a session."""

    @property
    def entity(self) -> str: ...
    @property
    def session_id(self) -> str: ...


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Serves one Ingest."""

    def __init__(self, ingest: Ingest, drain: Drain) -> None:
        self._ingest = ingest
        self._drain = drain
        self._idle_seconds = ingest.settings.stream_idle_seconds
        self._max_page_size = ingest.settings.max_page_size

    async def GetCapabilities(
        self, request: capabilities_pb2.GetCapabilitiesRequest, context: Context
    ) -> capabilities_pb2.GetCapabilitiesResponse:
        if request.entity:
            check_entity(request.entity)
        return convert.capabilities_to_proto(version("lading"), limits(self._ingest.settings))

    async def GetUsage(self, request: usage_pb2.GetUsageRequest, context: Context) -> usage_pb2.GetUsageResponse:
        used_bytes = await self._ingest.index.usage.stored_bytes(check_entity(request.entity))
        return usage_pb2.GetUsageResponse(used_bytes=used_bytes, limit_bytes=_quota_bytes())

    async def OpenSession(
        self, request: chunks_pb2.OpenSessionRequest, context: Context
    ) -> chunks_pb2.OpenSessionResponse:
        session = await self._ingest.open_session(check_entity(request.entity))
        return chunks_pb2.OpenSessionResponse(
            session_id=format_session(session), ttl_seconds=int(self._ingest.settings.session_ttl_seconds)
        )

    async def CloseSession(
        self, request: chunks_pb2.CloseSessionRequest, context: Context
    ) -> chunks_pb2.CloseSessionResponse:
        entity = check_entity(request.entity)
        await self._ingest.close_session(entity, parse_session(request.session_id))
        return chunks_pb2.CloseSessionResponse()

    async def FindMissingChunks(
        self, request: chunks_pb2.FindMissingChunksRequest, context: Context
    ) -> chunks_pb2.FindMissingChunksResponse:
        entity, session = _under(request)
        missing = await self._ingest.find_missing(entity, session, split_digests(request.digests))
        return chunks_pb2.FindMissingChunksResponse(missing_indexes=missing)

    async def PutChunks(  # type: ignore[override]  # writes to the context instead of yielding
        self, requests: AsyncIterator[chunks_pb2.PutChunksRequest | LargeBatch], context: Context
    ) -> None:
        messages = progress(requests, self._idle_seconds)
        entity, session = _under(await _start(messages))
        window_bytes = self._ingest.settings.window_bytes

        async def write(ack: Acknowledgement) -> None:
            await write_with_deadline(context, convert.acknowledgement_to_proto(ack, window_bytes), self._idle_seconds)

        async with self._ingest.chunk_sink(entity, session, _quota_bytes()) as sink:
            stream = PutChunksStream(sink, write)
            flush, watch = self._ingest.committer.flush, self._drain.watch
            await stream.run(self._chunk_batches(messages), flush=flush, stop_reading=watch)
        self._refuse_if_draining()

    async def CommitBlobs(  # type: ignore[override]  # writes to the context instead of yielding
        self, requests: AsyncIterator[chunks_pb2.CommitBlobsRequest], context: Context
    ) -> None:
        messages = progress(requests, self._idle_seconds)
        first = await anext(messages, None)
        if first is None or not first.HasField("start"):
            raise OutOfSequence("the first message of a CommitBlobs stream carries `start`")
        intake = await self._ingest.blob_intake(*_under(first.start), _quota_bytes())
        parts = first.parts
        while True:
            self._ingest.check_count(len(parts), "max_blobs_per_message")
            results = await intake.take([convert.recipe_from_proto(part) for part in parts])
            if results:
                await write_with_deadline(context, convert.results_to_proto(results), self._idle_seconds)
            message = await anext(messages, None)
            if message is None:
                break
            if message.HasField("start"):
                raise OutOfSequence("only the first message of a CommitBlobs stream carries `start`")
            parts = message.parts
        intake.finish()

    async def PutTree(
        self, requests: AsyncIterator[trees_pb2.PutTreeRequest], context: Context
    ) -> trees_pb2.PutTreeResponse:
        messages = progress(requests, self._idle_seconds)
        entity, session = _under(await _start(messages))
        async with self._ingest.tree_writer(entity, session, _quota_bytes()) as writer:
            async for message in messages:
                kind = message.WhichOneof("part")
                if kind == "batch":
                    await writer.add(await self._ingest.workers.run(convert.entries_from_proto, message.batch))
                elif kind == "finish":
                    expected = parse_digest(message.finish.expected_digest) if message.finish.expected_digest else None
                    totals, already = await writer.finish(expected)
                    return trees_pb2.PutTreeResponse(tree=convert.totals_to_proto(totals), already_present=already)
                else:
                    raise OutOfSequence("after `start`, a PutTree stream carries batches and then `finish`")
        raise OutOfSequence("the stream ended before `finish`; nothing was made, put the tree again")

    async def GetTree(self, request: trees_pb2.GetTreeRequest, context: Context) -> trees_pb2.GetTreeResponse:
        entity, digest = check_entity(request.entity), parse_digest(request.tree_digest)
        totals = await self._ingest.trees.totals(entity, digest)
        damaged = not await self._ingest.trees.is_whole(entity, digest)
        return trees_pb2.GetTreeResponse(tree=convert.totals_to_proto(totals), damaged=damaged)

    async def ListTree(self, request: trees_pb2.ListTreeRequest, context: Context) -> trees_pb2.ListTreeResponse:
        items, token = await self._ingest.trees.list_page(
            check_entity(request.entity),
            parse_digest(request.tree_digest),
            prefix=request.prefix,
            fold=request.fold_directories,
            page_size=convert.page_size_from_proto(request.page_size, self._max_page_size),
            page_token=request.page_token,
            max_bytes=_PAGE_BYTES,
        )
        return convert.listing_to_proto(items, token)

    async def DiffTrees(self, request: trees_pb2.DiffTreesRequest, context: Context) -> trees_pb2.DiffTreesResponse:
        changes, token = await self._ingest.trees.diff_page(
            check_entity(request.entity),
            parse_digest(request.base_digest),
            parse_digest(request.target_digest),
            page_size=convert.page_size_from_proto(request.page_size, self._max_page_size),
            page_token=request.page_token,
            max_bytes=_PAGE_BYTES,
        )
        return convert.changes_to_proto(changes, token)

    async def StatBlobs(self, request: chunks_pb2.StatBlobsRequest, context: Context) -> chunks_pb2.StatBlobsResponse:
        entity = check_entity(request.entity)
        self._ingest.check_count(len(request.digests), "max_digests_per_call")
        digests = [parse_digest(digest) for digest in request.digests]
        rows = await self._ingest.index.blobs.stat(entity, list(set(digests)))
        return chunks_pb2.StatBlobsResponse(
            blobs=[convert.blob_to_proto(rows[digest]) for digest in digests if digest in rows],
            missing_digests=[text for text, digest in zip(request.digests, digests, strict=True) if digest not in rows],
        )

    async def ReadBlobs(  # type: ignore[override]  # writes to the context instead of yielding
        self, request: chunks_pb2.ReadBlobsRequest, context: Context
    ) -> None:
        entity = check_entity(request.entity)
        self._ingest.check_count(len(request.ranges), "max_ranges_per_call")
        ranges = convert.ranges_from_proto(request)
        async with one_ahead(self._ingest.content.read(entity, ranges)) as ahead:
            async for pieces in ahead:
                await write_with_deadline(context, pieces, self._idle_seconds)

    async def UploadFile(
        self, requests: AsyncIterator[files_pb2.UploadFileRequest], context: Context
    ) -> files_pb2.UploadFileResponse:
        messages = progress(requests, self._idle_seconds)
        start = await _start(messages)
        entity, upload_id = check_entity(start.entity), check_upload_id(start.upload_id)
        session = parse_session(start.session_id) if start.session_id else None
        async with self._ingest.file_upload(entity, session, upload_id, _quota_bytes()) as upload:
            await upload.begin(start.offset_bytes)
            try:
                finish = await self._receive(upload, messages)
                expected = parse_digest(finish.expected_digest) if finish.expected_digest else None
                size_bytes = finish.expected_size_bytes if finish.HasField("expected_size_bytes") else None
                return convert.uploaded_to_proto(await upload.finish(expected, size_bytes))
            except BaseException:
                await upload.suspend()
                raise

    async def GetUpload(self, request: files_pb2.GetUploadRequest, context: Context) -> files_pb2.GetUploadResponse:
        entity, upload_id = check_entity(request.entity), check_upload_id(request.upload_id)
        return convert.status_to_proto(await upload_status(self._ingest.index, entity, upload_id))

    async def ReadFile(  # type: ignore[override]  # writes to the context instead of yielding
        self, request: files_pb2.ReadFileRequest, context: Context
    ) -> None:
        entity = check_entity(request.entity)
        digest = await self._target(entity, request)
        size_bytes = await self._ingest.content.size(entity, digest)
        wanted = convert.file_range(digest, request.offset_bytes, request.length_bytes, size_bytes)
        async with one_ahead(self._ingest.content.read(entity, [wanted])) as ahead:
            async for pieces in ahead:
                for piece in pieces:
                    if piece.error is not None:
                        raise piece.error
                    response = files_pb2.ReadFileResponse(
                        size_bytes=size_bytes, offset_bytes=piece.offset_bytes, data=bytes(piece.data)
                    )
                    await write_with_deadline(context, response, self._idle_seconds)

    async def _chunk_batches(
        self, messages: AsyncIterator[chunks_pb2.PutChunksRequest | LargeBatch]
    ) -> AsyncIterator[list[IncomingChunk]]:
        async for message in messages:
            if isinstance(message, LargeBatch):
                self._ingest.check_count(len(message.chunks), "max_chunks_per_message")
                yield message.chunks
                continue
            if message.WhichOneof("part") != "batch":
                raise OutOfSequence("after `start`, a PutChunks stream carries batches only")
            self._ingest.check_count(len(message.batch.chunks), "max_chunks_per_message")
            yield convert.chunks_from_proto(message.batch)

    async def _receive(
        self, upload: FileUpload, messages: AsyncIterator[files_pb2.UploadFileRequest]
    ) -> files_pb2.UploadFileFinish:
        async for message in messages:
            kind = message.WhichOneof("part")
            if kind == "finish":
                return message.finish
            if kind != "data":
                raise OutOfSequence("after `start`, an UploadFile stream carries data and then `finish`")
            self._refuse_if_draining()
            await upload.take(message.data)
        raise OutOfSequence("the stream ended before `finish`; GetUpload says where to continue")

    async def _target(self, entity: str, request: files_pb2.ReadFileRequest) -> bytes:
        if request.WhichOneof("target") != "tree_path":
            return parse_digest(request.blob_digest)
        tree_digest, path = parse_digest(request.tree_path.tree_digest), request.tree_path.path
        entry = await self._ingest.trees.find(entity, tree_digest, path)
        if isinstance(entry, ReferenceEntry):
            raise IsReference(f"{path!r} is a reference; its bytes are at {entry.uri}", uri=entry.uri)
        return entry.digest

    def _refuse_if_draining(self) -> None:
        if self._drain.started:
            raise Draining("the server is about to stop; what was acknowledged is safe, retry with backoff")


def _quota_bytes() -> int:
    """Return how much the entity of the call that this task works on may store; 0 is any amount."""
    return current_principal().limits.entity.stored_bytes


def _under(message: _UnderSession) -> tuple[str, bytes]:
    """Return the entity and session that a request is made under."""
    return check_entity(message.entity), parse_session(message.session_id)


async def _start(messages: AsyncIterator[Any]) -> Any:
    first = await anext(messages, None)
    if first is None or isinstance(first, LargeBatch) or first.WhichOneof("part") != "start":
        raise OutOfSequence("the first message of the stream is `start`")
    return first.start
