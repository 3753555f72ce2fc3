"""A client that watches the health of a server and grants it no room for the answers, as a hostile one may."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_STREAM = 1
_REQUEST_HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/grpc.health.v1.Health/Watch",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}
# An empty message, which is that of the whole server, in gRPC's frame.
_REQUEST = bytes(5)


@asynccontextmanager
async def deaf_watcher(port: int) -> AsyncIterator[None]:
    """Watch for the length of the block, which begins when the server has an answer that it cannot send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)))
        writer.write(_frame(_HEADERS, _END_HEADERS, _STREAM, b"".join(map(_literal, _REQUEST_HEADERS.items()))))
        writer.write(_frame(_DATA, _END_STREAM, _STREAM, _REQUEST))
        # Headers need no room, and grpc sends them when the first message is written.
        while await _next_frame(reader) != (_HEADERS, _STREAM):
            pass
        yield
    finally:
        writer.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(header: tuple[str, str]) -> bytes:
    """Return a header in HPACK, with nothing compressed."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in header)


async def _next_frame(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Return the kind and the stream of the next frame."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], int.from_bytes(head[5:], "big")
