"""Whom a TLS connection trusts, and what it shows of itself: which files say so. Pure, and without gRPC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lading._address import Address
from lading._errors import InvalidArgument
from lading._model import StrPath

CA_FILE = "LADING_CA_FILE"
CLIENT_CERT = "LADING_CLIENT_CERT"
CLIENT_KEY = "LADING_CLIENT_KEY"


@dataclass(frozen=True, slots=True)
class Trust:
    """The files of a TLS connection, PEM. Empty where there is none.

    Attributes:
        ca_file: Whose certificates are believed, in place of those that the system believes.
        client_cert: What this side shows, with its chain, where the server asks.
        client_key: The key of that.
    """

    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""


SYSTEM_TRUST = Trust()
"""What the system believes, and nothing to show."""


def trust_from(
    ca_file: StrPath | None, client_cert: StrPath | None, client_key: StrPath | None, environ: Mapping[str, str]
) -> Trust:
    """Return which files of TLS arguments name, and else the environment. Reads no file.

    Raises:
        InvalidArgument: There is a client certificate without its key, or a key without its certificate.
    """
    told = ((ca_file, CA_FILE), (client_cert, CLIENT_CERT), (client_key, CLIENT_KEY))
    trust = Trust(*(os.fspath(path) if path is not None else environ.get(name, "") for path, name in told))
    if bool(trust.client_cert) != bool(trust.client_key):
        raise InvalidArgument(
            f"A client certificate and its key go together. Give both, or {CLIENT_CERT} and {CLIENT_KEY}."
        )
    return trust


def check_trust(trust: Trust, address: Address) -> None:
    """Raise InvalidArgument where somebody who named certificates would go without TLS past other machines."""
    if trust != SYSTEM_TRUST and not address.tls and not address.is_loopback:
        raise InvalidArgument(
            f"There are certificates to use, and {address.url} has no TLS: the key would be sent in the clear. Write "
            f"grpcs://{address.target}, or take the certificates away ({CA_FILE}, {CLIENT_CERT})."
        )
