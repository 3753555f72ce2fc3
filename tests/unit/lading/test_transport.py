"""Addresses, and channels that a fork leaves behind."""

from __future__ import annotations

import os

import pytest

import lading
from lading._transport import Transport, parse_target


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:7420", "127.0.0.1:7420"),
        ("grpc://store.example:443", "store.example:443"),
        ("grpc://store.example:443/", "store.example:443"),
        ("[::1]:7420", "[::1]:7420"),
    ],
)
def test_an_address_is_host_and_port(address: str, target: str) -> None:
    assert parse_target(address) == target


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "http://host:1", "a/b:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(lading.InvalidArgument):
        parse_target(address)


def test_tls_is_refused_in_so_many_words() -> None:
    with pytest.raises(lading.InvalidArgument, match="TLS is not supported yet"):
        lading.IngestClient("grpcs://store.example:443", entity="acme")


async def test_a_child_of_a_fork_opens_channels_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport("127.0.0.1:9")
    parents = transport.control
    assert transport.control is parents
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert transport.control is not parents
    monkeypatch.undo()
    await transport.close()


async def test_nobody_at_the_address_is_told_as_such() -> None:
    policy = lading.RetryPolicy(retry_seconds=0)
    async with lading.IngestClient("127.0.0.1:9", entity="acme", retry=policy) as client:
        with pytest.raises(lading.Unavailable, match=r"127\.0\.0\.1:9.*Is the server running"):
            await client.get_capabilities()
