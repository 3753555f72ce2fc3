"""A service that does what a test tells it to, behind everything that stands before every real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc

from lading_proto.ingest.v1 import chunks_pb2, files_pb2, ingest_pb2, ingest_pb2_grpc
from lading_server.common.access import Access
from lading_server.common.database import DatabaseUnavailable
from lading_server.common.drain import Drain
from lading_server.common.errors import OutOfSequence, UploadNotFound
from lading_server.common.metrics import Metrics
from lading_server.common.serving import Server, running
from lading_server.common.settings import Settings

if TYPE_CHECKING:
    from lading_proto.ingest.v1.ingest_pb2_grpc import IngestServiceAsyncStub

SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
REFUSED = UploadNotFound("no such upload; start one", hint="start")

# The generated class is abstract for type checkers only; what is not overridden answers UNIMPLEMENTED.
_Servicer: Any = ingest_pb2_grpc.IngestServiceServicer


class EchoServicer(_Servicer):  # type: ignore[misc]
    """Methods of each kind; those that answer a stream are written in both ways."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()

    async def GetUpload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Unary: the upload id says what to do."""
        if request.upload_id == "refused":
            raise REFUSED
        if request.upload_id == "broken":
            raise ZeroDivisionError("a bug")
        if request.upload_id == "away":
            raise DatabaseUnavailable("database postgresql://db.internal cannot be used")
        if request.upload_id == "aborted":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "by itself")
        if request.upload_id == "waits":
            self.entered.set()
            await self.gate.wait()
        return files_pb2.GetUploadResponse(digest=request.upload_id)

    async def UploadFile(self, requests: Any, context: Any) -> Any:  # noqa: N802
        """Client stream: counts bytes; refuses a finish, and waits where it is told to by an upload id."""
        size_bytes = 0
        async for message in requests:
            if message.HasField("finish"):
                raise OutOfSequence("too early")
            if message.start.upload_id == "waits":
                self.entered.set()
                await self.gate.wait()
            size_bytes += len(message.data)
        return files_pb2.UploadFileResponse(size_bytes=size_bytes)

    async def ReadFile(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Server stream by a generator: three messages, and a refusal when an offset is asked for."""
        for index in range(3):
            yield files_pb2.ReadFileResponse(offset_bytes=index, data=b"data")
        if request.offset_bytes:
            raise REFUSED

    async def ReadBlobs(self, request: Any, context: Any) -> None:  # noqa: N802
        """Server stream by the writer."""
        for asked in request.ranges:
            await context.write(chunks_pb2.ReadBlobsResponse(pieces=[chunks_pb2.BlobPiece(data=asked.blob_digest)]))

    async def PutChunks(self, requests: Any, context: Any) -> Any:  # noqa: N802
        """Both streams by a generator: one answer a message; refuses a second start."""
        has_started = False
        async for message in requests:
            if message.HasField("start") and has_started:
                raise REFUSED
            has_started = True
            yield chunks_pb2.PutChunksResponse(acknowledged_chunks=len(message.batch.chunks))

    async def CommitBlobs(self, requests: Any, context: Any) -> None:  # noqa: N802
        """Both streams by the writer."""
        async for _ in requests:
            await context.write(chunks_pb2.CommitBlobsResponse())


class EchoServer:
    """A running EchoServicer, with a channel and a stub to it."""

    def __init__(self, servicer: EchoServicer, server: Server, drain: Drain, metrics: Metrics) -> None:
        self.servicer = servicer
        self.server = server
        self.drain = drain
        self.metrics = metrics
        self.target = f"127.0.0.1:{server.port}"
        self.channel = grpc.aio.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1)])
        # The generated async stub exists for type checkers only.
        self.stub = cast("IngestServiceAsyncStub", ingest_pb2_grpc.IngestServiceStub(self.channel))


class _Component:
    service_names = (SERVICE,)

    def __init__(self, servicer: EchoServicer) -> None:
        self._servicer = servicer

    def add_to(self, server: grpc.aio.Server) -> None:
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(self._servicer, server)


@asynccontextmanager
async def echo_server(settings: Settings | None = None) -> AsyncIterator[EchoServer]:
    """Serve an EchoServicer on a free port for the length of the block."""
    servicer, drain, metrics = EchoServicer(), Drain(), Metrics()
    components = [_Component(servicer)]
    async with running(settings or Settings(), ("127.0.0.1", 0), components, drain, metrics, Access(None)) as server:
        echo = EchoServer(servicer, server, drain, metrics)
        try:
            yield echo
        finally:
            servicer.gate.set()
            await echo.channel.close()
