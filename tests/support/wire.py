"""The protocol by hand: what a client in another language would send, for tests that need to send it wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import grpc
from blake3 import blake3
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from xxhash import xxh3_64_intdigest

from lading_proto.ingest.v1 import chunks_pb2, files_pb2, ingest_pb2_grpc, trees_pb2

T = TypeVar("T")

ENTITY = "acme"
MESSAGE_BYTES = 3 << 20


def digest_of(data: bytes) -> bytes:
    return blake3(data).digest()


def text_digest(data: bytes) -> str:
    return "b3:" + blake3(data).hexdigest()


def chunk(data: bytes, **changes: object) -> chunks_pb2.Chunk:
    """A right chunk, with fields changed as the test wants."""
    fields: dict[str, Any] = {
        "digest": digest_of(data),
        "xxh3": xxh3_64_intdigest(data),
        "size_bytes": len(data),
        "data": data,
    }
    return chunks_pb2.Chunk(**(fields | changes))


def recipe(data: bytes, chunks: Sequence[bytes] | None = None, **changes: object) -> chunks_pb2.RecipePart:
    """A right recipe: of the given chunks, or of one."""
    fields: dict[str, Any] = {"blob_digest": digest_of(data), "size_bytes": len(data)}
    if chunks is not None:
        fields["chunk_digests"] = b"".join(map(digest_of, chunks))
        fields["chunk_sizes"] = [len(part) for part in chunks]
    return chunks_pb2.RecipePart(**(fields | changes))


def file_entry(path: str, data: bytes, **changes: object) -> trees_pb2.TreeEntry:
    fields: dict[str, Any] = {"blob_digest": digest_of(data), "size_bytes": len(data)}
    return trees_pb2.TreeEntry(path=path, file=trees_pb2.TreeFile(**(fields | changes)))


def reason_of(error: grpc.RpcError) -> str:
    """The ErrorInfo reason of a failed call, or "" when it has none."""
    assert isinstance(error, grpc.aio.AioRpcError)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    assert info.domain == "lading"
                    return str(info.reason)
    return ""


class _Keyed:
    """A stub whose calls carry a key."""

    def __init__(self, stub: Any, key: str) -> None:
        self._stub = stub
        self._metadata = [("authorization", f"Bearer {key}")] if key else []

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(self._stub, name), metadata=self._metadata)


class Wire:
    """One channel and its stub, with the few sequences that every test needs."""

    def __init__(self, target: str, entity: str = ENTITY, *, key: str = "") -> None:
        """`key` is sent with every call; a server that asks for none takes it all the same."""
        self.entity = entity
        # Any: the generated stubs are typed for the blocking API.
        self.channel: Any = grpc.aio.insecure_channel(
            target,
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 8 << 20)],
        )
        self.stub: Any = _Keyed(ingest_pb2_grpc.IngestServiceStub(self.channel), key)

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.channel.close()

    async def session(self) -> str:
        response = await self.stub.OpenSession(chunks_pb2.OpenSessionRequest(entity=self.entity))
        return str(response.session_id)

    async def missing(self, session: str, chunks: Iterable[bytes]) -> list[int]:
        request = chunks_pb2.FindMissingChunksRequest(
            entity=self.entity, session_id=session, digests=b"".join(map(digest_of, chunks))
        )
        return list((await self.stub.FindMissingChunks(request)).missing_indexes)

    async def put(self, session: str, chunks: Sequence[chunks_pb2.Chunk]) -> list[chunks_pb2.PutChunksResponse]:
        """Put chunks in one stream and return all answers."""
        return [response async for response in self.stub.PutChunks(self._put_requests(session, chunks))]

    async def _put_requests(
        self, session: str, chunks: Sequence[chunks_pb2.Chunk]
    ) -> AsyncIterator[chunks_pb2.PutChunksRequest]:
        yield put_start(session, self.entity)
        batch: list[chunks_pb2.Chunk] = []
        for one in chunks:
            if batch and sum(len(c.data) for c in batch) + len(one.data) > MESSAGE_BYTES:
                yield put_batch(batch)
                batch = []
            batch.append(one)
        if batch:
            yield put_batch(batch)

    async def commit(self, session: str, parts: Sequence[chunks_pb2.RecipePart]) -> list[chunks_pb2.BlobResult]:
        requests = [
            chunks_pb2.CommitBlobsRequest(
                start=chunks_pb2.CommitBlobsStart(entity=self.entity, session_id=session), parts=parts
            )
        ]
        return [result async for response in self.stub.CommitBlobs(iter_of(requests)) for result in response.results]

    async def put_blob(self, session: str, data: bytes) -> None:
        """Store a blob of one chunk."""
        if data:
            await self.put(session, [chunk(data)])
        (result,) = await self.commit(session, [recipe(data)])
        assert result.outcome in (chunks_pb2.BLOB_OUTCOME_COMMITTED, chunks_pb2.BLOB_OUTCOME_ALREADY_PRESENT)

    async def put_tree(
        self, session: str, entries: Sequence[trees_pb2.TreeEntry], expected: str = ""
    ) -> trees_pb2.PutTreeResponse:
        requests = [
            trees_pb2.PutTreeRequest(start=trees_pb2.PutTreeStart(entity=self.entity, session_id=session)),
            trees_pb2.PutTreeRequest(batch=trees_pb2.TreeEntryBatch(entries=entries)),
            trees_pb2.PutTreeRequest(finish=trees_pb2.PutTreeFinish(expected_digest=expected)),
        ]
        response: trees_pb2.PutTreeResponse = await self.stub.PutTree(iter_of(requests))
        return response

    async def read(self, digest: str, offset: int = 0, length: int = 0) -> bytes:
        request = files_pb2.ReadFileRequest(
            entity=self.entity, blob_digest=digest, offset_bytes=offset, length_bytes=length
        )
        return b"".join([response.data async for response in self.stub.ReadFile(request)])


async def iter_of(items: Iterable[T]) -> AsyncIterator[T]:
    """An async iterator over what is there."""
    for item in items:
        yield item


def put_start(session: str, entity: str = ENTITY) -> chunks_pb2.PutChunksRequest:
    return chunks_pb2.PutChunksRequest(start=chunks_pb2.PutChunksStart(entity=entity, session_id=session))


def put_batch(chunks: Sequence[chunks_pb2.Chunk]) -> chunks_pb2.PutChunksRequest:
    return chunks_pb2.PutChunksRequest(batch=chunks_pb2.ChunkBatch(chunks=chunks))


@asynccontextmanager
async def wire_of(target: str, entity: str = ENTITY) -> AsyncIterator[Wire]:
    async with Wire(target, entity) as wire:
        yield wire
