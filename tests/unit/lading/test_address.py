"""How an address is written."""

from __future__ import annotations

import pytest

import lading
from lading._address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7420", Address("127.0.0.1", 7420)),
        ("grpc://store.example:443", Address("store.example", 443)),
        ("grpc://store.example:443/", Address("store.example", 443)),
        ("grpcs://Store.Example:443", Address("store.example", 443, tls=True)),
        ("[::1]:7420", Address("[::1]", 7420)),
    ],
)
def test_an_address_is_host_and_port_and_tls_or_not(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(address.url) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "http://host:1", "a/b:1", "grpcs://host"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(lading.InvalidArgument):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_loopback_addresses_are_this_machine(host: str) -> None:
    assert Address(host, 1).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.example", "[::]", "store"])
def test_all_others_may_be_another_machine(host: str) -> None:
    assert not Address(host, 1).is_loopback
