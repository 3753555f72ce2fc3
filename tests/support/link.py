"""A bad connection between a client and a server: a proxy for TCP that cuts, stalls, throttles and delays."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum, auto
from types import TracebackType

_BLOCK_BYTES = 32 << 10
# What is on its way while it is delayed: as a network has some.
_UNDERWAY_BLOCKS = 64


class Way(Enum):
    """Which way bytes go."""

    UP = auto()
    DOWN = auto()


class Fault(Enum):
    """What happens to all connections when so many bytes have passed."""

    # Both sides are told.
    CUT = auto()
    # Nobody is told, and nothing passes any more.
    STALL = auto()
    # The server is told that the client is gone, and the client waits.
    SERVER_SIDE_CLOSED = auto()
    # The client is told that the server is gone, and the server waits.
    CLIENT_SIDE_CLOSED = auto()


class Link:
    """Passes bytes on. An async context manager.

    Attributes:
        address: Where clients connect to.
        bytes_per_second: How much passes each way of each connection; 0 for any amount.
        delay_seconds: How much later everything arrives.
        faults: How many there were.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.bytes_per_second = 0
        self.delay_seconds = 0.0
        self.faults = 0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._armed: tuple[Fault, Way, int] | None = None
        self._again = 0
        self._passed = dict.fromkeys(Way, 0)
        self._is_down = False
        # All, and those that nothing has happened to.
        self._all: set[_Connection] = set()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._all:
            connection.strike(Fault.CUT)
        await asyncio.gather(*self._tasks)

    def arm(self, fault: Fault, way: Way, after_bytes: int, *, times: int = 1) -> None:
        """Let a fault happen each time that so many bytes have passed that way; new connections are well."""
        self._armed, self._again = (fault, way, after_bytes), times
        self._passed = dict.fromkeys(Way, 0)

    def go_down(self) -> None:
        """Cut everything, and let nobody connect until `come_up`."""
        self._is_down = True
        self._strike(Fault.CUT)

    def come_up(self) -> None:
        """Let clients connect again."""
        self._is_down = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_down:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        connection = _Connection(writer, server_writer)
        self._all.add(connection)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pass(connection, Way.UP, reader, server_writer),
                self._pass(connection, Way.DOWN, server_reader, writer),
            )
        finally:
            self._all.discard(connection)
            self._connections.discard(connection)
            for one in (writer, server_writer):
                one.transport.abort()

    async def _pass(
        self, connection: _Connection, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDERWAY_BLOCKS)
        sending = asyncio.create_task(self._send(connection, underway, writer))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(_BLOCK_BYTES):
                    self._count(way, len(data))
                    await underway.put((asyncio.get_running_loop().time() + self.delay_seconds, data))
                    if self.bytes_per_second:
                        await asyncio.sleep(len(data) / self.bytes_per_second)
            await underway.put((0.0, b""))
            await sending
        finally:
            sending.cancel()

    async def _send(
        self, connection: _Connection, underway: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        is_open = True
        while (item := await underway.get())[1]:
            if connection.is_stalled:
                # What is sent into it is taken for a while, and goes nowhere, as in a network.
                await connection.ended.wait()
                continue
            due, data = item
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            try:
                if is_open:
                    writer.write(data)
                    await writer.drain()
            except OSError:
                is_open = False
        if not connection.is_stalled:
            writer.close()

    def _count(self, way: Way, size_bytes: int) -> None:
        self._passed[way] += size_bytes
        if self._armed is None or not self._again:
            return
        fault, armed_way, after_bytes = self._armed
        if way is armed_way and self._passed[way] >= after_bytes:
            self._passed[way] = 0
            self._again -= 1
            self.faults += 1
            self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        for connection in list(self._connections):
            connection.strike(fault)
        self._connections.clear()


class _Connection:
    """Both halves of one connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.is_stalled = False
        self.ended = asyncio.Event()
        self._client = client
        self._server = server

    def strike(self, fault: Fault) -> None:
        """Let it happen to this one."""
        if fault is Fault.CUT:
            self.ended.set()
        else:
            self.is_stalled = True
        if fault in (Fault.CUT, Fault.SERVER_SIDE_CLOSED):
            self._server.transport.abort()
        if fault in (Fault.CUT, Fault.CLIENT_SIDE_CLOSED):
            self._client.transport.abort()
