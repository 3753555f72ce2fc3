"""The event loop behind `lading.sync`: one thread of each process that uses it."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Generic, TypeVar

from lading._errors import FailedPrecondition

T = TypeVar("T")

# What is cancelled when the interpreter exits has this long; the thread is a daemon and holds nobody up after it.
_EXIT_SECONDS = 5.0


class _Job(Generic[T]):
    """Something to do on the loop. Its methods are called there, in the order in which they were asked for."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.work = work
        self.ended: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.work)
        self._task.add_done_callback(self._hand_over)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            # Whoever waits was interrupted before it could ask for the beginning.
            self.work.close()
            self.ended.set_exception(concurrent.futures.CancelledError())

    def forget(self) -> None:
        """Let go of it in the child of a fork. What had begun is the parent's, and may be in the middle of a step."""
        if self._task is None:
            self.work.close()

    def _hand_over(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.ended.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(task.result())


class LoopThread:
    """An event loop in a thread, which starts at first use and stops when the interpreter exits."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._closing: set[asyncio.Future[None]] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop, and return or raise what it comes to.

        Ctrl-C, and whatever else is raised here meanwhile, cancels it and waits for its end; a second one does not
        wait.

        Raises:
            FailedPrecondition: This is the loop's own thread (a callback, say), the interpreter is exiting, or this is
                the child of a fork and the loop its parent's.
        """
        job = _Job(work)
        try:
            soon = self._soon()
            soon(job.begin)
            return job.ended.result()
        except BaseException:
            if not job.ended.done():
                self._cancel(job)
            raise

    def discard(self, generator: AsyncGenerator[Any, None]) -> None:
        """Close an asynchronous generator some time. From any thread, and at any time."""
        loop = self._loop
        if self._pid == os.getpid() and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._close, generator)

    def _soon(self) -> Callable[[Callable[[], object]], object]:
        """Return what calls a function on the loop."""
        if self._pid != os.getpid():
            # Before anything else: a fork copies neither the thread nor what would let go of the lock.
            raise FailedPrecondition(
                f"This belongs to process {self._pid}, from which this one was forked, and works only there. Make a "
                "client here, and open it again with that."
            )
        if threading.current_thread() is self._thread:
            raise FailedPrecondition("A callback of lading.sync cannot call lading.sync. Hand it to another thread.")
        self._start()
        if self._loop is None or self._loop.is_closed():
            raise FailedPrecondition("lading.sync has ended with the interpreter.")
        return self._loop.call_soon_threadsafe

    def _cancel(self, job: _Job[Any]) -> None:
        """End a job that has not ended, and wait for that."""
        if self._pid != os.getpid():
            # There is no thread that could end it.
            job.forget()
            return
        loop = self._loop
        if loop is None or loop.is_closed() or threading.current_thread() is self._thread:
            job.work.close()
            return
        loop.call_soon_threadsafe(job.cancel)
        concurrent.futures.wait([job.ended])

    def _close(self, generator: AsyncGenerator[Any, None]) -> None:
        # A loop does not hold on to its tasks.
        task = asyncio.ensure_future(generator.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            ready = threading.Event()
            self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), name="lading", daemon=True)
            self._thread.start()
            ready.wait()
            atexit.register(self._exit)

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        ready.set()
        # On return asyncio.run cancels the rest and waits for it.
        await self._stop.wait()

    def _exit(self) -> None:
        # A fork copies this callback, and not the thread.
        if self._pid == os.getpid() and self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_EXIT_SECONDS)


# By process: a fork copies the entry of its parent, which is of no use to it, but must not be destroyed there either.
_LOOPS: dict[int, LoopThread] = {}


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do something on this process's loop. See LoopThread.run."""
    return loop().run(work)


def loop() -> LoopThread:
    """Return the loop of this process."""
    pid = os.getpid()
    # One step for the interpreter, so that it needs no lock, which a fork could catch in the middle.
    return _LOOPS.get(pid) or _LOOPS.setdefault(pid, LoopThread())
