"""Where a server is: `host:port`, `grpc://host:port`, or `grpcs://host:port` with TLS. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from lading._errors import InvalidArgument

_SCHEMES = {"grpc": False, "grpcs": True}


@dataclass(frozen=True, slots=True)
class Address:
    """One server.

    Attributes:
        host: Its name or number; IPv6 in brackets.
        port: 1 to 65535.
        tls: Whether the connection is encrypted and the server has to prove its name.
    """

    host: str
    port: int
    tls: bool = False

    @property
    def target(self) -> str:
        """What gRPC dials, and messages show."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The one spelling of this address: what credentials are kept under."""
        return f"{'grpcs' if self.tls else 'grpc'}://{self.target}"

    @property
    def bare_host(self) -> str:
        """The host without brackets."""
        return self.host.removeprefix("[").removesuffix("]")

    @property
    def is_loopback(self) -> bool:
        """Whether it can only be this machine."""
        if self.bare_host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.bare_host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Return what an address says.

    Raises:
        InvalidArgument: It is not `host:port`, `grpc://host:port` or `grpcs://host:port`.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in _SCHEMES:
        raise InvalidArgument(
            f"{text}: an address is host:port, grpc://host:port or grpcs://host:port, not {scheme}://."
        )
    target = (rest if separator else text).rstrip("/")
    host, colon, port = target.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise InvalidArgument(f"{text!r} is not an address. Give host:port, such as 127.0.0.1:7420.")
    return Address(host.lower(), int(port), bool(separator) and _SCHEMES[scheme])
