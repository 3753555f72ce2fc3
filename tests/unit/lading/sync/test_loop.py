"""The thread behind lading.sync: Ctrl-C, callbacks, forks, exits."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest

import lading
from lading.sync._items import Items
from lading.sync._loop import LoopThread, loop, run
from lading.sync._remote_file import RemoteFile
from tests.unit.lading.conftest import run_in_fork


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def thread_name() -> str:
    return threading.current_thread().name


def test_work_is_done_on_one_thread_and_its_result_returned() -> None:
    assert run(answer()) == 42
    assert run(thread_name()) == "lading"
    before = threading.active_count()
    threads = [threading.Thread(target=lambda: run(answer())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threading.active_count() == before


def test_what_it_raises_is_raised_here() -> None:
    async def fails() -> None:
        raise lading.NotFound("nothing")

    with pytest.raises(lading.NotFound):
        run(fails())


def test_a_callback_cannot_wait_for_its_own_thread() -> None:
    async def calls_back() -> None:
        run(answer())

    with pytest.raises(lading.FailedPrecondition, match="callback"):
        run(calls_back())


def test_ctrl_c_cancels_the_work_and_waits_for_its_end() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert ended == ["cancelled"]
    assert run(answer()) == 42


def test_the_child_of_a_fork_starts_its_own() -> None:
    assert run(answer()) == 42
    parent = loop()

    def child() -> None:
        assert threading.active_count() == 1
        assert loop() is not parent
        assert run(answer()) == 42
        assert run_in_fork(grandchild) == 0

    def grandchild() -> None:
        assert run(answer()) == 42

    assert run_in_fork(child) == 0
    assert loop() is parent
    assert run(answer()) == 42


def test_a_forked_child_is_told_that_the_loop_is_its_parents() -> None:
    running, unused = loop(), LoopThread()
    assert running.run(answer()) == 42

    def child() -> None:
        for parents in (running, unused):
            work = answer()
            with pytest.raises(lading.FailedPrecondition, match=rf"process {os.getppid()}, .*forked.*Make a client"):
                parents.run(work)
            assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED

    assert run_in_fork(child) == 0
    assert running.run(answer()) == 42


def test_a_fork_from_many_threads_finds_a_loop_that_starts() -> None:
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            run(answer())

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert run_in_fork(lambda: None if run(answer()) == 42 else os.abort()) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def script(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that ends by itself."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_interpreter_exits_with_work_on_its_way() -> None:
    done = script(
        """
        import asyncio
        from lading.sync._loop import loop, run
        async def never():
            try:
                await asyncio.Event().wait()
            finally:
                print("ended")
        async def begin():
            global task
            task = asyncio.create_task(never())
            await asyncio.sleep(0)
        run(begin())
        print("exits")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "exits\nended\n", "")


def test_a_forked_child_exits_by_itself_and_leaves_the_parent_its_loop() -> None:
    done = script(
        """
        import os, sys
        from lading.sync._loop import run
        async def answer():
            return 42
        run(answer())
        pid = os.fork()
        if pid == 0:
            sys.exit(run(answer()) if len(sys.argv) > 5 else 7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), run(answer()))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7 42\n", "")


def test_a_child_that_is_forked_in_the_middle_of_work_leaves_it_to_its_parent() -> None:
    done = script(
        """
        import asyncio, os, signal, sys, threading
        from lading.sync._loop import run
        forked = threading.Event()
        def fork(*_):
            global pid
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                sys.exit(7)
            forked.set()
        signal.signal(signal.SIGUSR1, fork)
        async def work():
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
                await asyncio.to_thread(forked.wait)
                return 42
            finally:
                print("ended", flush=True)
        print(run(work()), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert (done.returncode, done.stdout) == (0, "ended\n42 7\n")


class Numbers:
    """Counts up, and knows how far it was asked."""

    def __init__(self, end: int, error: Exception | None = None) -> None:
        self.made = 0
        self.closed = threading.Event()
        self._end = end
        self._error = error

    async def __call__(self) -> AsyncGenerator[int, None]:
        try:
            while self.made < self._end:
                self.made += 1
                yield self.made
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


def test_a_listing_is_an_iterator_that_reads_ahead_a_little() -> None:
    numbers = Numbers(100_000)
    items = Items(numbers())
    assert numbers.made == 0
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    assert numbers.made <= 1000
    items.close()
    assert numbers.closed.is_set()
    assert list(items) == []


def test_a_listing_is_read_to_its_end() -> None:
    numbers = Numbers(1001)
    assert list(Items(numbers())) == list(range(1, 1002))
    assert numbers.closed.is_set()
    assert list(Items(Numbers(0)())) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    items = Items(Numbers(5, lading.NotFound("gone"))())
    taken = []
    with pytest.raises(lading.NotFound):  # noqa: PT012 - which of the steps raises is what is looked at
        for item in items:
            taken.append(item)  # noqa: PERF402 - those before the error are looked at
    assert taken == [1, 2, 3, 4, 5]
    assert list(items) == []


def test_a_forked_child_cannot_go_on_with_a_listing(forked: Callable[[Callable[[], None]], int]) -> None:
    items = Items(Numbers(1000)(), at_once=2)
    assert next(items) == 1

    def child() -> None:
        # What was read ahead is here.
        assert next(items) == 2
        for _ in range(2):
            with pytest.raises(lading.FailedPrecondition, match="forked"):
                next(items)
        with pytest.raises(lading.FailedPrecondition, match="forked"):
            items.close()

    assert forked(child) == 0
    assert next(items) == 2
    items.close()


class Letters:
    """A stored file, without a store."""

    async def read(self, size: int) -> bytes:
        return b"x" * size

    async def seek(self, offset: int, _: int) -> int:
        return offset

    def tell(self) -> int:
        return 0

    async def close(self) -> None:
        pass


def test_a_forked_child_cannot_read_on_in_a_file(forked: Callable[[Callable[[], None]], int]) -> None:
    file = RemoteFile(cast(Any, Letters()))
    assert file.read(3) == b"xxx"

    def child() -> None:
        with pytest.raises(lading.FailedPrecondition, match="forked"):
            file.read(2 << 20)
        with pytest.raises(lading.FailedPrecondition, match="forked"):
            file.close()
        assert file.closed

    assert forked(child) == 0
    assert file.read(2 << 20) == b"x" * (2 << 20)
    file.close()


def test_letting_go_of_a_listing_closes_it() -> None:
    numbers = Numbers(100_000)
    items = Items(numbers())
    next(items)
    del items
    gc.collect()
    assert numbers.closed.wait(60)


def test_a_listing_in_a_block_is_closed_with_it(forked: Callable[[Callable[[], None]], int]) -> None:
    numbers = Numbers(100_000)
    with Items(numbers()) as items:
        assert next(items) == 1
        # A child that lets go of it does nothing to the parent's.
        assert forked(items.__del__) == 0
        assert not numbers.closed.is_set()
    assert numbers.closed.is_set()
