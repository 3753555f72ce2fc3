"""A long way between a client and a server: every byte arrives later, and no more of them a second than the link has.

python -m tests.support.far TARGET --round-trip-seconds 0.1 --bytes-per-second 25000000

Prints the address to dial. A process of its own, so that it takes none of the time of either side. Both directions have
the whole bandwidth, which all connections share. What it reads it acknowledges at once, as TCP does whose windows are
large enough: what limits the flow is then the link, or what the two programs themselves wait for.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BLOCK_BYTES = 64 << 10
# What waits before the link, as in a router: after that nothing more is read, and the sender has to wait.
_QUEUE_SECONDS = 0.05


class Link:
    """One direction. Invariant: everything that was taken has left it at `_free_at`, and is there `delay` later."""

    def __init__(self, delay_seconds: float, bytes_per_second: float) -> None:
        self._delay_seconds = delay_seconds
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's bytes until they end."""
        on_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(reader, on_way))
            tasks.create_task(_hand_over(on_way, writer))

    async def _take(self, reader: asyncio.StreamReader, on_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        block = b"more"
        while block:
            try:
                block = await reader.read(_BLOCK_BYTES)
            except ConnectionError:
                block = b""
            now = loop.time()
            self._free_at = max(now, self._free_at) + len(block) / self._bytes_per_second
            on_way.put_nowait((self._free_at + self._delay_seconds, block))
            if self._free_at > now + _QUEUE_SECONDS:
                await asyncio.sleep(self._free_at - now - _QUEUE_SECONDS)


async def _hand_over(on_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, block = await on_way.get()
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        # One side may be gone, and its writer with it.
        with suppress(OSError):
            if not block:
                writer.write_eof()
                return
            # Not drained: more than the link carries in its delay is never on the way to here.
            writer.write(block)


async def serve(target: str, round_trip_seconds: float, bytes_per_second: float) -> None:
    """Print the address, and carry every connection to it until the process ends."""
    host, _, port = target.rpartition(":")
    there, back = (Link(round_trip_seconds / 2, bytes_per_second) for _ in range(2))

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(there.carry(reader, onward_writer))
                tasks.create_task(back.carry(onward_reader, writer))
        finally:
            onward_writer.close()
            writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def far_from(target: str, *, round_trip_seconds: float, bytes_per_second: float) -> Iterator[str]:
    """The address of a server as it is seen from far away, for the length of the block."""
    numbers = ["--round-trip-seconds", str(round_trip_seconds), "--bytes-per-second", str(bytes_per_second)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.far", target, *numbers], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port of the server")
    parser.add_argument("--round-trip-seconds", type=float, required=True)
    parser.add_argument("--bytes-per-second", type=float, required=True, help="of each direction")
    options = parser.parse_args()
    asyncio.run(serve(options.target, options.round_trip_seconds, options.bytes_per_second))


if __name__ == "__main__":
    main()
