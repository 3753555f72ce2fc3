"""The memory that files are read into, from reading to acknowledgement. Knows no files."""

from __future__ import annotations

import asyncio
import mmap
from collections import deque


class Block:
    """A part of the memory. Goes back when all that was held of it was let go. For the event loop alone.

    Attributes:
        memory: What to read into, in whatever thread.
    """

    __slots__ = ("_held_bytes", "_home", "memory")

    def __init__(self, home: Blocks, memory: memoryview) -> None:
        self.memory = memory
        self._home = home
        self._held_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Say that so many bytes of it are in use, or none. Once, when they were read."""
        self._held_bytes = size_bytes
        if not size_bytes:
            self._home.give_back(self)

    def release(self, size_bytes: int) -> None:
        """Say that so many of the bytes that were held are not looked at any more."""
        self._held_bytes -= size_bytes
        if not self._held_bytes:
            self._home.give_back(self)


class Blocks:
    """Blocks of one size, used again and again: what they take is all that an upload takes for the bytes of files.

    Fresh memory costs more than it seems: the kernel fills in every page of it at its first use, and a virtual machine
    may have to get the page from its host. Taken from the heap, buffers of this size were a tenth of the processor time
    of an upload of images.
    """

    def __init__(self, count: int, size_bytes: int) -> None:
        self._unmade = count
        self._size_bytes = size_bytes
        self._free: list[Block] = []
        self._waiting: deque[asyncio.Future[Block]] = deque()
        self._closed = False

    async def take(self) -> Block:
        """Wait until one is free, and take it. First come, first served."""
        if self._free:
            # The one that was used last: a small upload touches no more than it needs.
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return Block(self, memoryview(mmap.mmap(-1, self._size_bytes, flags=mmap.MAP_PRIVATE)))
        turn: asyncio.Future[Block] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await turn

    def give_back(self, block: Block) -> None:
        """Take a block back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(block)
                return
        if not self._closed:
            self._free.append(block)

    def close(self) -> None:
        """Let go of the memory; of what is still held, when it is given back. Nobody may take any more.

        Each block knows where it belongs, so without this all of them would stay until Python looks for such circles:
        some uploads later, or never where a training loop has its collector off.
        """
        self._closed = True
        self._free.clear()
