"""What TLS channels are made with. Blocks on the disk."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import grpc

from lading._errors import InvalidArgument
from lading._trust import Trust

_log = logging.getLogger("lading")

# gRPC reads this one by itself.
_GRPC_ROOTS = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
# Where distributions keep the bundle, when Python's own OpenSSL was built to look elsewhere.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def channel_credentials(trust: Trust) -> grpc.ChannelCredentials:
    """Return what a TLS channel is made with.

    Raises:
        InvalidArgument: A file does not hold what it should.
        OSError: It cannot be read.
    """
    roots = Path(trust.ca_file).read_bytes() if trust.ca_file else system_roots()
    if trust.ca_file:
        _check_roots(trust.ca_file)
    if not trust.client_cert:
        return grpc.ssl_channel_credentials(roots)
    cert, key = Path(trust.client_cert).read_bytes(), Path(trust.client_key).read_bytes()
    _check_pair(trust.client_cert, trust.client_key)
    return grpc.ssl_channel_credentials(roots, key, cert)


def system_roots() -> bytes | None:
    """Return the system's certificates, PEM; None for those that gRPC brings along, where the system has none.

    `SSL_CERT_FILE` names another bundle, as for every program that uses OpenSSL.
    """
    if os.environ.get(_GRPC_ROOTS):
        return None
    named = ssl.get_default_verify_paths().cafile
    for bundle in (named, *_BUNDLES):
        if bundle and os.path.isfile(bundle):
            return Path(bundle).read_bytes()
    return None


def _check_roots(ca_file: str) -> None:
    # gRPC would only say that it cannot make a handshake.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise InvalidArgument(f"{ca_file} holds no certificates in PEM ({error.reason or error}).") from error


def _check_pair(cert: str, key: str) -> None:
    def refuse() -> str:
        raise InvalidArgument(
            f"{key} is encrypted. Decrypt it with `openssl pkey`, into a file that only you can read."
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError as error:
        raise InvalidArgument(
            f"{cert} and {key} are no pair of certificate and key in PEM ({error.reason or error})."
        ) from error
    if os.stat(key).st_mode & 0o077:
        _log.warning("%s is a key and may be read by others. Run: chmod 600 %s", key, key)
