"""A server that serves one tree, and lies where a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc.aio

from lading_format.digest import blake3_digest, format_digest
from lading_format.tree import FileEntry, TreeHasher
from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, files_pb2, ingest_pb2_grpc, trees_pb2

Reader = Callable[[chunks_pb2.ReadBlobsRequest], AsyncIterator[chunks_pb2.ReadBlobsResponse]]
Lister = Callable[[trees_pb2.ListTreeRequest], trees_pb2.ListTreeResponse]

# Never that of a tree: for listings that are refused before the digest counts.
ANY_DIGEST = "b3:" + "00" * 32


def file_entry(path: str, data: bytes = b"", executable: bool = False) -> trees_pb2.ListedEntry:
    """Return a line of a listing for a file of these bytes."""
    return trees_pb2.ListedEntry(
        path=path,
        kind=trees_pb2.ENTRY_KIND_FILE,
        blob_digest=format_digest(blake3_digest(data)),
        size_bytes=len(data),
        executable=executable,
    )


def tree_digest(files: Mapping[str, bytes]) -> str:
    """Return the digest of the tree of these files."""
    hasher = TreeHasher()
    for path in sorted(files, key=str.encode):
        hasher.add(FileEntry(path, blake3_digest(files[path]), len(files[path]), False))
    return format_digest(hasher.finish())


# The generated class is abstract for type checkers only; what is not overridden answers UNIMPLEMENTED.
_Servicer: Any = ingest_pb2_grpc.IngestServiceServicer


class HostileServer(_Servicer):  # type: ignore[misc]
    """Serves `files` honestly, but for what is replaced. An async context manager.

    Args:
        files: The tree.
        entries: What to list instead of the files.
        lister: What to answer to ListTree instead.
        reader: What to answer to ReadBlobs instead.
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        entries: Sequence[trees_pb2.ListedEntry] | None = None,
        lister: Lister | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.files = dict(sorted((files or {}).items(), key=lambda item: item[0].encode()))
        self.digest = tree_digest(self.files)
        self.address = ""
        self.read_requests: list[chunks_pb2.ReadBlobsRequest] = []
        self._blobs = {blake3_digest(data): data for data in self.files.values()}
        self._entries = entries if entries is not None else [file_entry(*item) for item in self.files.items()]
        self._lister = lister
        self._reader = reader
        self._server = grpc.aio.server()

    async def __aenter__(self) -> HostileServer:
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(None)

    async def GetCapabilities(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        return capabilities_pb2.GetCapabilitiesResponse(digest_function=capabilities_pb2.DIGEST_FUNCTION_BLAKE3_256)

    async def ListTree(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        if self._lister is not None:
            return self._lister(request)
        return trees_pb2.ListTreeResponse(entries=self._entries)

    async def ReadBlobs(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        self.read_requests.append(request)
        async for response in self._reader(request) if self._reader is not None else self.read(request):
            yield response

    async def ReadFile(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Answer with the file's size, and with its bytes backwards."""
        (data,) = [data for data in self.files.values() if format_digest(blake3_digest(data)) == request.blob_digest]
        yield files_pb2.ReadFileResponse(size_bytes=len(data), data=data[::-1])

    async def read(self, request: chunks_pb2.ReadBlobsRequest) -> AsyncIterator[chunks_pb2.ReadBlobsResponse]:
        """Answer honestly, a piece of at most 64 KiB to a message."""
        for index, wanted in enumerate(request.ranges):
            data = self._blobs[wanted.blob_digest]
            end = wanted.offset_bytes + wanted.length_bytes
            for offset in range(wanted.offset_bytes, end, 1 << 16):
                part = data[offset : min(end, offset + (1 << 16))]
                yield message(piece(part, index=index, offset=offset, last=offset + len(part) == end))


def piece(data: bytes, *, index: int = 0, offset: int = 0, last: bool = False) -> chunks_pb2.BlobPiece:
    """Return one piece."""
    return chunks_pb2.BlobPiece(range_index=index, offset_bytes=offset, data=data, last=last)


def message(*pieces: chunks_pb2.BlobPiece) -> chunks_pb2.ReadBlobsResponse:
    """Return a message of pieces."""
    return chunks_pb2.ReadBlobsResponse(pieces=pieces)
