"""What every test may use: a server, and the rule that CI skips nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lading import _grpc  # noqa: F401 - before anything that imports grpc: tests fork
from tests.support.server import ServerProcess, running_server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """With LADING_TEST_NOTHING_SKIPPED set, as CI has it, a skipped test is a failed one."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("LADING_TEST_NOTHING_SKIPPED"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI skips nothing: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def fresh_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of whoever runs the tests counts: no key, no login, no cache, no server that left word of itself."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("LADING_URL", "LADING_API_KEY", "LADING_ENTITY", "LADING_PROJECT", "LADING_CACHE_DIR"):
            patch.delenv(variable, raising=False)
        for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
        yield


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, with a fresh data directory."""
    with running_server(tmp_path / "server-data") as process:
        yield process


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests of a module that do not disturb each other: each takes an entity of its own."""
    with running_server(tmp_path_factory.mktemp("shared") / "server-data") as process:
        yield process
