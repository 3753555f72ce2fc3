"""Serves the two methods that carry the bytes of content, with encodings of their own: see bulk_wire."""

from __future__ import annotations

from typing import Any

import grpc

from lading_proto.ingest.v1 import chunks_pb2, ingest_pb2
from lading_server.ingest.service.bulk_wire import decode_put_chunks, encode_pieces
from lading_server.ingest.service.servicer import IngestServicer


def add_bulk_handlers(servicer: IngestServicer, server: grpc.aio.Server) -> None:
    """Serve PutChunks and ReadBlobs. Before the generated handlers: the first that knows a method has it."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "PutChunks": grpc.stream_stream_rpc_method_handler(
            servicer.PutChunks, decode_put_chunks, chunks_pb2.PutChunksResponse.SerializeToString
        ),
        "ReadBlobs": grpc.unary_stream_rpc_method_handler(
            servicer.ReadBlobs, chunks_pb2.ReadBlobsRequest.FromString, encode_pieces
        ),
    }
    name = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
