"""A small HTTP proxy that knows CONNECT alone, and takes every name for this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_BLOCK_BYTES = 64 << 10


class Proxy:
    """What was asked of it, in order: `host:port`."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
            assert method == b"CONNECT"
            self.asked.append(target.decode())
            port = int(target.rpartition(b":")[2])
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                await asyncio.gather(_pour(reader, onward_writer), _pour(onward_reader, writer))
            finally:
                onward_writer.close()
        finally:
            writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await reader.read(_BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def running_proxy() -> AsyncIterator[Proxy]:
    """A proxy on a free port of the loopback interface."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
