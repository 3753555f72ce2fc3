"""Ingest and registry, in one process or one of them: settings in, one line when ready, an exit code at the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lading_format.errors import ReasonedError
from lading_server.common.access import Access, KeyChecker, RememberedKeys, read_service_key
from lading_server.common.allocator import keep_freed_memory
from lading_server.common.allowances import keyless_allowances
from lading_server.common.database import DatabaseUnavailable
from lading_server.common.drain import Drain
from lading_server.common.kept_versions import KeptVersions
from lading_server.common.keys_for_reading import KeysForReading
from lading_server.common.local_file import announced
from lading_server.common.logs import set_up_logs
from lading_server.common.metrics import Metrics
from lading_server.common.peers import dialed
from lading_server.common.serving import AddressInUse, Component, running, told_to_stop
from lading_server.common.settings import (
    Settings,
    SettingsError,
    exposed,
    ingest_dial_target,
    load_settings,
    shown_address,
    split_address,
)
from lading_server.common.tls import Certificates, CertificatesRefused
from lading_server.common.unfinished import refuse_unfinished
from lading_server.ingest.component import IngestComponent, open_ingest
from lading_server.ingest.packs.local import StoreLocked
from lading_server.ingest.registry_keys import RemoteKeys
from lading_server.ingest.registry_versions import NoRegistryVersions, RemoteVersions
from lading_server.registry.component import RegistryComponent, open_registry
from lading_server.registry.ingest_pins import RemotePins

try:
    from uvloop import new_event_loop
except ImportError:  # there is none for Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

_log = logging.getLogger(__name__)

# Objects that hold others, made and not yet given back, after which Python looks for garbage: 700 by itself.
_COLLECTED_FROM_OBJECTS = 10_000

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
    except (StoreLocked, AddressInUse, CertificatesRefused, DatabaseUnavailable, ReasonedError, OSError) as error:
        sys.stderr.write(f"lading serve: {error}\n")
        return EXIT_FAILED
    return EXIT_OK


async def serve(settings: Settings) -> None:
    """Serve until told to stop, then drain.

    Raises StoreLocked, AddressInUse, CertificatesRefused, DatabaseUnavailable, OSError when the server cannot start.
    """
    drain, metrics = Drain(), Metrics()
    host, port = split_address(settings.listen)
    _warn(settings)
    certificates = Certificates(settings)
    async with AsyncExitStack() as stack:
        if settings.metrics_port:
            stack.enter_context(metrics.served(settings.metrics_host, settings.metrics_port))
        parts = await _opened(settings, drain, metrics, certificates, stack)
        server = await stack.enter_async_context(
            running(settings, (host, port), parts.components, drain, metrics, parts.access, certificates)
        )
        told = told_to_stop()
        certificates.read_again_on_hangup()
        key_file = parts.registry.admin_key_file if parts.registry is not None and settings.auth == "keys" else None
        if parts.registry is not None:
            stack.enter_context(announced(host, server.port, str(key_file or ""), tls=certificates.serves_tls))
        key = f", admin key in {key_file}" if key_file is not None else ""
        shown = f"{'grpcs://' if certificates.serves_tls else ''}{shown_address(host, server.port)}"
        _spare_collections()
        sys.stdout.write(f"lading {version('lading')} is ready at {shown} (data in {settings.data}{key})\n")
        sys.stdout.flush()
        await told.wait()
        _log.info("draining")
        await server.drain(drain, settings.drain_seconds)


def _spare_collections() -> None:
    """Let Python's collector look at what calls make only, and not as often.

    What was imported and opened stays until the end. A full collection of it stopped every call for 0.1 s, and many
    small objects of one call, such as the recipes of some thousand files, brought one about.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_FROM_OBJECTS, *gc.get_threshold()[1:])


@dataclass(frozen=True)
class _Parts:
    """What one process serves, and who may call it. `registry` is None where another process has it."""

    components: list[Component]
    registry: RegistryComponent | None
    access: Access


async def _opened(
    settings: Settings, drain: Drain, metrics: Metrics, certificates: Certificates, stack: AsyncExitStack
) -> _Parts:
    """Open the services of the settings, each with the other one beside it or at the end of a channel."""
    refuse_unfinished(Path(settings.data))
    service_key = read_service_key(settings.service_key_file) if settings.services != "both" else ""
    components: list[Component] = []
    registry: RegistryComponent | None = None
    keys: KeyChecker | None = None
    keys_for_reading: KeyChecker | None = None
    versions: KeptVersions = NoRegistryVersions()
    ingest: IngestComponent | None = None
    if settings.services != "registry":
        ingest = await stack.enter_async_context(open_ingest(settings, drain, metrics))
        pins = ingest.pins
        components.append(ingest)
    else:
        pins = RemotePins(
            await stack.enter_async_context(dialed(ingest_dial_target(settings), service_key, certificates))
        )
    if settings.services != "ingest":
        registry = await stack.enter_async_context(open_registry(settings, pins))
        keys, versions = registry.keys, registry.kept
        components.append(registry)
    elif settings.registry_target:
        peer = await stack.enter_async_context(dialed(settings.registry_target, service_key, certificates))
        versions = RemoteVersions(peer)
        keys = remembered = RememberedKeys(RemoteKeys(peer), settings.key_cache_seconds)
        keys_for_reading = KeysForReading(remembered, settings.key_grace_seconds)
    if ingest is not None:
        await stack.enter_async_context(ingest.collecting(versions))
    access = Access(
        keys if settings.auth == "keys" else None,
        service_key,
        keys_for_reading=keys_for_reading if settings.auth == "keys" else None,
        keyless=keyless_allowances(settings),
    )
    return _Parts(components, registry, access)


def _warn(settings: Settings) -> None:
    if settings.auth == "none":
        _log.warning("--auth none: whoever reaches %s may read and write everything", settings.listen)
    for flag, address, remedy in exposed(settings):
        _log.warning("%s %s: whoever is on the way can read keys and content; %s", flag, address, remedy)
