"""A gRPC server with what every Lading server has: health, reflection, the interceptor, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lading_server.common.access import Access
from lading_server.common.drain import Drain
from lading_server.common.interceptor import CallInterceptor
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings, shown_address, split_address
from lading_server.common.tls import Certificates

_log = logging.getLogger(__name__)

# Unary calls beside the streams; far more than a server of this kind can work on at once.
_CALLS_BESIDE_STREAMS = 1000
# A client that pings more often is cut off; ours does every 30 s.
_MIN_PING_MILLISECONDS = 10_000
# How long the answers of the last calls may be on their way when the handlers are done.
_LAST_ANSWERS_SECONDS = 1.0
# How long those who watch health may take to hear of the end: one that reads nothing keeps all others of its service.
_TELL_HEALTH_SECONDS = 1.0
# A process that was told twice to end did so at once.
EXIT_SECOND_SIGNAL = 130


class Component(Protocol):
    """A part of a server: its services."""

    @property
    def service_names(self) -> Sequence[str]:
        """The full names of its services, for health and reflection."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register its services."""


class AddressInUse(Exception):
    """The address cannot be listened on; the message names it."""


class Server:
    """A running server."""

    def __init__(
        self,
        server: grpc.aio.Server,
        port: int,
        health_servicer: health.aio.HealthServicer,
        health_names: Sequence[str],
        interceptor: CallInterceptor,
    ) -> None:
        """`health_names`: what health can be asked about."""
        self._server = server
        self._health = health_servicer
        self._health_names = health_names
        self._interceptor = interceptor
        self.port = port

    async def drain(self, drain: Drain, seconds: float) -> None:
        """End in order: no new calls, health beside that, then those that are open, at most for `seconds`.

        Until the open calls have ended new ones are still answered, with DRAINING: a server of grpc that is being
        stopped refuses them without a reason, and waits for whoever watches its health.
        """
        # Nothing that waits for a client comes before this.
        drain.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_health())
            try:
                async with asyncio.timeout(seconds):
                    await self._interceptor.until_idle()
            except TimeoutError:
                _log.warning("%d calls are cut off after %g seconds", self._interceptor.open_calls, seconds)
        await self._server.stop(_LAST_ANSWERS_SECONDS)

    async def _tell_health(self) -> None:
        """Let health say NOT_SERVING.

        grpc_health holds the lock of a service while it writes to whoever watches it, which takes as long as the
        watcher likes. So no service waits for another one, and none for long.
        """
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            async with asyncio.timeout(_TELL_HEALTH_SECONDS):
                await asyncio.gather(*(self._health.set(name, not_serving) for name in self._health_names))
        except TimeoutError:
            _log.warning("whoever watches health does not read, and is not told of the end")


@asynccontextmanager
async def running(
    settings: Settings,
    address: tuple[str, int],
    components: Sequence[Component],
    drain: Drain,
    metrics: Metrics,
    access: Access,
    certificates: Certificates | None = None,
) -> AsyncIterator[Server]:
    """Serve the components at an address for the length of the block.

    Args:
        certificates: What to serve TLS with; those of the settings, when they were not read before.

    Raises:
        CertificatesRefused: They cannot be used.
        AddressInUse: This address, or that of the settings where certificates are required, cannot be had.
    """
    certificates = certificates or Certificates(settings)
    wants_mutual = bool(settings.mutual_listen)
    interceptor = CallInterceptor(drain, metrics, settings.max_streams, access, services_show_certificates=wants_mutual)
    server = grpc.aio.server(
        interceptors=[interceptor],
        maximum_concurrent_rpcs=_CALLS_BESIDE_STREAMS + settings.max_streams,
        options=[
            # Otherwise a second server on the port would silently share it.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_MILLISECONDS),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_MILLISECONDS),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = [name for component in components for name in component.service_names]
    for component in components:
        component.add_to(server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    host, port = address
    is_required = settings.tls_client_auth == "required"
    bound = _bind(server, host, port, certificates.server_credentials(demands_certificate=is_required), "--listen")
    if wants_mutual:
        mutual = certificates.server_credentials(demands_certificate=True)
        mutual_host, mutual_port = split_address(settings.mutual_listen)
        mutual_port = _bind(server, mutual_host, mutual_port, mutual, "--mutual-listen")
        _log.info("client certificates are required at grpcs://%s", shown_address(mutual_host, mutual_port))
    await server.start()
    health_names = ("", *names)
    for name in health_names:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield Server(server, bound, health_servicer, health_names, interceptor)
    finally:
        await server.stop(None)


def _bind(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None, flag: str) -> int:
    shown = shown_address(host, port)
    try:
        if credentials is None:
            return int(server.add_insecure_port(shown))
        return int(server.add_secure_port(shown, credentials))
    except RuntimeError as error:
        raise AddressInUse(
            f"cannot listen on {shown}: {_reason(host, port)}; stop what is there, or choose another {flag}"
        ) from error


def _reason(host: str, port: int) -> str:
    """Ask the operating system why an address cannot be had: grpc does not tell."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return "gRPC refused it"
    except OSError as error:
        # Python adds the address to the text in some versions, and the caller names it already.
        return str(error) if error.errno is None else os.strerror(error.errno)


def told_to_stop() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT from now on sets; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def stop() -> None:
        if told.is_set():
            _log.warning("told to stop twice: ending at once")
            # A crash like any other: nothing acknowledged is lost.
            os._exit(EXIT_SECOND_SIGNAL)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return told
