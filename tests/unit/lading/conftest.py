"""Forks, for tests of what they leave."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

import pytest


@pytest.fixture
def forked() -> Callable[[Callable[[], None]], int]:
    """What runs a function in the child of a fork, and returns the child's exit code; minus a signal that ended it."""
    return run_in_fork


def run_in_fork(function: Callable[[], None]) -> int:
    """Fork, run, and wait. A child that hangs is ended by the alarm that it sets itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks with threads: that is what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
