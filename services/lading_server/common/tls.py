"""Certificates: read from files, checked before they are used, and read again when the operator says so.

A pair that cannot be used never takes the place of one that can. Knows gRPC's credentials, and no service.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import grpc

from lading_server.common.settings import Settings

_log = logging.getLogger(__name__)

_BEGIN_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_END_CERTIFICATE = "-----END CERTIFICATE-----"
# A bundle of every public authority is below 300 KB.
_PEM_BYTES = 4 << 20
# Anybody but the owner and the group: a group that may read keys is how distributions share them.
_OTHERS = 0o007


class CertificatesRefused(Exception):
    """Certificate files cannot be used; the message says which, why, and what to do."""


class _Names(NamedTuple):
    """The settings that a set of files was given by, for messages."""

    cert: str
    key: str
    ca: str


_SERVER = _Names("--tls-cert", "--tls-key", "--tls-client-ca")
_PEER = _Names("--peer-cert", "--peer-key", "--peer-ca")


@dataclass(frozen=True)
class _Material:
    """PEM, as the files had it at one moment. Empty where there is no file."""

    cert: bytes
    key: bytes
    ca: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the first certificate: what `openssl x509 -fingerprint -sha256` prints, without colons."""
        text = self.cert.decode("ascii", "replace")
        begin = text.index(_BEGIN_CERTIFICATE)
        end = text.index(_END_CERTIFICATE, begin) + len(_END_CERTIFICATE)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[begin:end])).hexdigest()


class _Files:
    """The files of one side, and what was last found good in them."""

    def __init__(self, names: _Names, cert: str, key: str, ca: str) -> None:
        """Raises CertificatesRefused."""
        self._names = names
        self._paths = cert, key, ca
        self.material = self._read()

    def read_again(self) -> bool:
        """Take what the files have now, if it is good; tell whether that is something new.

        Raises:
            CertificatesRefused: It is not, and the earlier one stays.
        """
        found = self._read()
        is_new, self.material = found != self.material, found
        return is_new

    def _read(self) -> _Material:
        material = self._bytes()
        self._check(material)
        return material

    def _bytes(self) -> _Material:
        cert, key, ca = self._paths
        return _Material(_read(self._names.cert, cert), _read(self._names.key, key), _read(self._names.ca, ca))

    def _check(self, material: _Material) -> None:
        """Load the files as a TLS library does. gRPC would only say that it cannot."""
        cert, key, ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if cert:
            try:
                context.load_cert_chain(cert, key, password=self._refuse_encrypted)
                _ = material.fingerprint
            except (ssl.SSLError, ValueError) as error:
                raise CertificatesRefused(
                    f"{self._names.cert} {cert} and {self._names.key} {key} are no pair of certificate and key in PEM "
                    f"({_why(error)}); give the certificate with its chain, and the key that it was made for"
                ) from error
            _warn_if_others_read(self._names.key, key)
        if ca:
            try:
                context.load_verify_locations(ca)
            except ssl.SSLError as error:
                raise CertificatesRefused(
                    f"{self._names.ca} {ca} holds no certificates in PEM ({_why(error)})"
                ) from error
        if self._bytes() != material:
            raise CertificatesRefused(
                f"the files of {self._names.cert}, {self._names.key} and {self._names.ca} changed while they were "
                "read; try again when all are written"
            )

    def _refuse_encrypted(self) -> str:
        raise CertificatesRefused(
            f"{self._names.key} {self._paths[1]} is encrypted, and nobody is here to give the password; "
            "decrypt it with `openssl pkey`, into a file that only the server's user can read"
        )


class Certificates:
    """What this process shows and whom it trusts: as a server, and towards the other service."""

    def __init__(self, settings: Settings) -> None:
        """Raises CertificatesRefused."""
        self._server: _Files | None = None
        self._peer: _Files | None = None
        self._watchers: list[Callable[[], None]] = []
        if settings.tls_cert:
            self._server = _Files(_SERVER, settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        if settings.peer_ca:
            self._peer = _Files(_PEER, settings.peer_cert, settings.peer_key, settings.peer_ca)

    @property
    def serves_tls(self) -> bool:
        """Whether there is a certificate to serve with."""
        return self._server is not None

    def server_credentials(self, *, demands_certificate: bool) -> grpc.ServerCredentials | None:
        """Return the credentials of one port, or None where it has no TLS.

        Connections that are made from now on get what is good then.

        Args:
            demands_certificate: Whether a client has to show a certificate of `--tls-client-ca`. gRPC for Python can
                demand one or not ask; it cannot ask and go on without.
        """
        if self._server is None:
            return None
        files, given = self._server, self._server.material

        def newer() -> grpc.ServerCertificateConfiguration | None:
            # Asked before each handshake, by a thread of gRPC's that holds a lock of the port meanwhile.
            nonlocal given
            if files.material is given:
                return None
            given = files.material
            return _configuration(given)

        # The stubs do not know that the fetcher may return None, for no change.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", newer)
        return grpc.dynamic_ssl_server_credentials(_configuration(given), fetch, demands_certificate)

    def peer_credentials(self) -> grpc.ChannelCredentials | None:
        """Return what dials the other service just now, or None where that goes without TLS."""
        if self._peer is None:
            return None
        material = self._peer.material
        return grpc.ssl_channel_credentials(material.ca, material.key or None, material.cert or None)

    def watch_peer(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever `peer_credentials` changed."""
        self._watchers.append(callback)

    def read_again(self) -> None:
        """Take what the files have now. What cannot be used is refused with a line in the log, and the old stays."""
        if self._server is not None and _reread(self._server):
            _log.info("new connections get the certificate with SHA-256 %s", self._server.material.fingerprint)
        if self._peer is not None and _reread(self._peer):
            _log.info("the other service is dialed with what the files of --peer-ca and --peer-cert have now")
            for callback in self._watchers:
                callback()

    def read_again_on_hangup(self) -> None:
        """Let SIGHUP mean `read_again` from now on. Without certificates it goes on ending the process."""
        if self._server is not None or self._peer is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.read_again)


def shows_certificate(auth_context: dict[str, Sequence[bytes]]) -> bool:
    """Tell whether the other end of a call's connection has shown a certificate. gRPC has verified it then."""
    return bool(auth_context.get("x509_pem_cert"))


def _reread(files: _Files) -> bool:
    try:
        is_new = files.read_again()
    except CertificatesRefused as refusal:
        _log.error("the certificates in use stay: %s", refusal)
        return False
    if not is_new:
        _log.info("the certificate files have not changed")
    return is_new


def _configuration(material: _Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.ca or None)


def _read(setting: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(_PEM_BYTES)
    except OSError as error:
        raise CertificatesRefused(f"{setting} {path} cannot be read: {error.strerror}") from error


def _warn_if_others_read(setting: str, path: str) -> None:
    if os.stat(path).st_mode & _OTHERS:
        _log.warning(
            "%s %s holds a secret, and every user of this machine may read it; run: chmod o= %s", setting, path, path
        )


def _why(error: Exception) -> str:
    return (error.reason or str(error)) if isinstance(error, ssl.SSLError) else str(error)
