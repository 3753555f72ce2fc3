"""Whom a TLS connection trusts: what the operating system trusts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

# gRPC reads this one by itself.
_GRPC_ROOTS = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
# Where distributions keep the bundle, when Python's own OpenSSL was built to look elsewhere.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


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
