"""Where a call came from."""

from __future__ import annotations

import pytest

from lading_server.registry.service.callers import origin_of


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        ("ipv4:10.0.0.7:5123", "10.0.0.7"),
        ("ipv6:%5B::1%5D:5123", "::1"),
        ("ipv6:[2001:db8::7]:5123", "2001:db8::7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5123", "fe80::1%eth0"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:5123", "10.0.0.7"),
        ("unix:/run/lading.sock", "unix"),
        ("unix:", "unix"),
        ("unix-abstract:lading:1:2", "unix-abstract"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_the_origin_is_an_address_without_a_port(peer: str, origin: str) -> None:
    assert origin_of(peer) == origin
