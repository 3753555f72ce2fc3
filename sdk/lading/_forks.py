"""What gRPC leaves in the child of a fork, kept from doing harm. PyTorch's DataLoader forks.

A fork copies channels and not the threads that serve them. So in a child

- a call on a channel of the parent, and on a new one while the parent had one open, hangs or ends by SIGSEGV;
- the destructor of a channel waits for a thread that is not there, for ever. It runs whenever the collector finds a
  channel that the parent had let go of.

The first is told by an exception, and the second is kept from happening. And a fork that comes right after the last
channel was closed waits until gRPC's own threads have ended: a child of that moment hangs or aborts (3 of 8), and one
of the moment after does not (0 of 6). Seen with grpcio 1.85; see lading._grpc, too.
"""

from __future__ import annotations

import functools
import gc
import os
import threading
import time

from lading._errors import FailedPrecondition

# gRPC's threads end within some milliseconds. Other libraries have threads of their own, so this is waited for at most.
_ENDING_SECONDS = 0.5
_LOOK_SECONDS = 0.005


class OpenChannels:
    """The channels of a process that are open: a base of what holds them.

    Attributes:
        pid: The process that opened them.
    """

    def __init__(self) -> None:
        """Count as open from now on.

        Raises:
            FailedPrecondition: This is the child of a process that had channels open when it forked.
        """
        self.pid = os.getpid()
        if any(channels.pid != self.pid for channels in tuple(_OPEN)):
            raise FailedPrecondition(
                "This process was forked from one that was connected to Lading, and gRPC does not survive that. Use "
                "Lading in the parent; or start this process by spawn (multiprocessing.get_context('spawn'), or "
                "DataLoader(multiprocessing_context='spawn')); or close every client and finish every run before the "
                "fork."
            )
        _keep_garbage_from_children()
        _OPEN.add(self)

    def forget(self) -> None:
        """Count as closed; in a child, where they cannot be closed, do nothing."""
        if self.pid == os.getpid():
            _OPEN.discard(self)
            _ENDING.append(time.monotonic() + _ENDING_SECONDS)
            del _ENDING[:-1]


# In a child also what its parent had open, which is never let go of there.
_OPEN: set[OpenChannels] = set()
# Until when gRPC may still be ending its threads: nothing, or the one moment after the channels that were closed last.
_ENDING: list[float] = []


@functools.cache
def _keep_garbage_from_children() -> None:
    """From now on, let no child of a fork collect what was there before the fork.

    Before the fork and not after it: what others registered to run in the child first may set off the collector.
    """
    frozen: list[bool] = []

    def before() -> None:
        _let_grpc_end()
        # Whoever has frozen objects wants them to stay so.
        frozen.append(gc.get_freeze_count() == 0)
        if frozen[-1]:
            gc.freeze()

    def in_parent() -> None:
        if frozen.pop():
            gc.unfreeze()

    os.register_at_fork(before=before, after_in_parent=in_parent)


def _let_grpc_end() -> None:
    """Wait until the threads of a gRPC that has no channels any more are gone."""
    while not _OPEN and _ENDING and time.monotonic() < _ENDING[-1] and _has_native_threads():
        time.sleep(_LOOK_SECONDS)


def _has_native_threads() -> bool:
    """Tell whether there are threads that Python did not start; where the system does not tell, there may be."""
    try:
        return len(os.listdir("/proc/self/task")) > threading.active_count()
    except OSError:
        return True
