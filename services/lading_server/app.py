"""Ingest and registry in one process: settings in, one line when ready, an exit code at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version

from lading_format.errors import ReasonedError
from lading_server.common.allocator import keep_freed_memory
from lading_server.common.database import DatabaseUnavailable
from lading_server.common.drain import Drain
from lading_server.common.logs import set_up_logs
from lading_server.common.metrics import Metrics
from lading_server.common.serving import AddressInUse, running, told_to_stop
from lading_server.common.settings import Settings, SettingsError, load_settings, split_address
from lading_server.ingest.component import open_ingest
from lading_server.ingest.packs.local import StoreLocked
from lading_server.registry.component import RegistryComponent

try:
    from uvloop import new_event_loop
except ImportError:  # there is none for Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

_log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until it is told to stop; return the exit code."""
    try:
        settings = load_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        sys.stderr.write(f"lading serve: {error}\n")
        return EXIT_USAGE
    set_up_logs(settings.log_level, settings.log_format)
    keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(settings))
    except (StoreLocked, AddressInUse, DatabaseUnavailable, ReasonedError, OSError) as error:
        sys.stderr.write(f"lading serve: {error}\n")
        return EXIT_FAILED
    return EXIT_OK


async def serve(settings: Settings) -> None:
    """Serve until told to stop, then drain.

    Raises StoreLocked, AddressInUse, DatabaseUnavailable, OSError when the server cannot start.
    """
    drain, metrics = Drain(), Metrics()
    host, port = split_address(settings.listen)
    if settings.insecure:
        _log.warning("--insecure: whoever reaches %s may read and write everything", settings.listen)
    async with AsyncExitStack() as stack:
        if settings.metrics_port:
            stack.enter_context(metrics.served(settings.metrics_host, settings.metrics_port))
        ingest = await stack.enter_async_context(open_ingest(settings, drain, metrics))
        server = await stack.enter_async_context(
            running(settings, (host, port), [ingest, RegistryComponent(settings)], drain, metrics)
        )
        told = told_to_stop()
        shown = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
        sys.stdout.write(f"lading {version('lading')} is ready at {shown} (data in {settings.data})\n")
        sys.stdout.flush()
        await told.wait()
        _log.info("draining")
        await server.drain(drain, settings.drain_seconds)
