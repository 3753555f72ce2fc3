"""A lane of an upload: what it lays out, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

import pytest

from lading._errors import OutcomeUnknown
from lading._limits import Limits
from lading._retry import Attempts, RetryPolicy
from lading._transport import MESSAGE_BYTES, Transport
from lading._upload.content import Chunk, UploadingFile
from lading._upload.flow import Inbox
from lading._upload.lanes import Lane
from lading._upload.session import Session
from lading._upload.wire import encode_batch

RETRY_SECONDS = 120.0


class FakeSession:
    """A session that is there."""

    async def current_id(self) -> str:
        return "1"

    def note(self, error: Exception, session_id: str) -> None:
        """Have nothing to learn from errors."""


class Settler:
    """Takes nothing back, as what is sent here is never unanswered."""

    def sent(self, size_bytes: int) -> None: ...

    def settle(self, chunks: Iterable[Chunk], *, was_present: bool) -> None: ...

    def ask_again(self, chunks: Iterable[Chunk]) -> None: ...


class ScriptedLane(Lane):
    """Each stream takes one item; those whose turn is in `fails` break before it."""

    def __init__(self, to_send: Inbox[Chunk], fails: set[int], limits: Limits | None = None) -> None:
        super().__init__(cast(Transport, None), 0, cast(Session, FakeSession()), limits or Limits(), to_send, Settler())
        self.streams = 0
        self.taken = asyncio.Event()
        self._inbox = to_send
        self._fails = fails

    async def _stream(self, session_id: str, attempts: Attempts) -> None:
        self.streams += 1
        if self.streams in self._fails:
            raise OutcomeUnknown("the connection was cut")
        self._inbox.take()
        self.taken.set()


def chunk(size_bytes: int = 1) -> Chunk:
    return Chunk(cast(UploadingFile, None), 0, bytes(32), 0, memoryview(bytes(size_bytes)), cast("object", None))  # type: ignore[arg-type]


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def policy(clock: Clock) -> RetryPolicy:
    return RetryPolicy(RETRY_SECONDS, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


async def test_time_without_work_is_no_time_of_trying_in_vain() -> None:
    clock = Clock()
    inbox: Inbox[Chunk] = Inbox()
    lane = ScriptedLane(inbox, fails={1, 3})
    running = asyncio.create_task(lane.run(policy(clock)))
    for _ in range(2):
        # Longer than anything is tried for.
        clock.seconds += 2 * RETRY_SECONDS
        inbox.put([chunk()])
        await asyncio.wait_for(lane.taken.wait(), 10)
        lane.taken.clear()
    inbox.close()
    await running
    assert lane.streams == 4


async def test_a_lane_whose_streams_break_again_and_again_gives_up() -> None:
    clock = Clock()
    inbox: Inbox[Chunk] = Inbox()
    lane = ScriptedLane(inbox, fails=set(range(1, 1000)))
    inbox.put([chunk()])
    with pytest.raises(OutcomeUnknown):
        await lane.run(policy(clock))


async def test_no_message_is_larger_than_the_connection_sends_whatever_the_server_takes() -> None:
    inbox: Inbox[Chunk] = Inbox()
    lane = ScriptedLane(inbox, set(), Limits(max_message_bytes=16 << 20))
    lane._window_bytes = 64 << 20
    # Just not full enough to be closed, and then one that is as large as may be.
    inbox.put([chunk((3 << 20) - 1000), chunk(2 << 20)])
    assert len(encode_batch(lane._next_batch())) <= MESSAGE_BYTES
    assert len(inbox) == 1
