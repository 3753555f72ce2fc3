"""A connection that TLS keeps from being made says in one line what to do; and the way through a proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lading
from tests.support.certificates import LOCAL, Authority, Pair
from tests.support.proxy import running_proxy
from tests.support.server import ServerProcess, running_server

LADING = [sys.executable, "-c", "from lading._cli.main import main; main()"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def _serving(tmp_path: Path, pair: Pair) -> Iterator[ServerProcess]:
    flags = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    with running_server(tmp_path / "server-data", *flags) as server:
        yield server


async def _failure(url: str, ca_file: Path | None, kind: type[lading.LadingError]) -> str:
    """The message of a failed call, which must not have been repeated for what will not pass."""
    retry = 0.0 if kind is lading.Unavailable else 120.0
    async with lading.Client(url, entity="acme", ca_file=ca_file, retry=retry) as client:
        with pytest.raises(kind) as caught:
            await client.whoami()
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message
    return caught.value.message


async def test_a_plain_client_is_told_to_write_grpcs(tmp_path: Path, authority: Authority) -> None:
    with _serving(tmp_path, authority.issue("server", *LOCAL)) as server:
        message = await _failure(server.target, None, lading.Unavailable)
        assert message == f"{server.target} hung up at once. If it has TLS, write grpcs://{server.target}."


async def test_a_tls_client_of_a_plain_server_is_told_so(server: ServerProcess, authority: Authority) -> None:
    message = await _failure(f"grpcs://{server.target}", authority.file, lading.Untrusted)
    assert message.startswith(f"{server.target} has no TLS. Write grpc://{server.target}")


async def test_an_issuer_that_nobody_knows_is_told_with_what_to_name(tmp_path: Path, authority: Authority) -> None:
    with _serving(tmp_path, authority.issue("server", *LOCAL)) as server:
        for ca_file in (None, Authority(tmp_path, "another").file):
            message = await _failure(f"grpcs://{server.target}", ca_file, lading.Untrusted)
            assert f"certificate of {server.target} was issued by nobody that this machine trusts" in message
            assert "LADING_CA_FILE, ca_file=, or lading login --ca-file" in message


async def test_a_certificate_for_another_name_is_told_with_the_name(tmp_path: Path, authority: Authority) -> None:
    with _serving(tmp_path, authority.issue("server", "store.example")) as server:
        message = await _failure(f"grpcs://{server.target}", authority.file, lading.Untrusted)
        assert f"The certificate of {server.target} is not for the name 127.0.0.1." in message


async def test_a_certificate_that_has_expired_is_told(tmp_path: Path, authority: Authority) -> None:
    with _serving(tmp_path, authority.issue("server", *LOCAL, valid_days=-1)) as server:
        message = await _failure(f"grpcs://{server.target}", authority.file, lading.Untrusted)
        assert f"The certificate of {server.target} is not valid today." in message


def _lading(*arguments: str, home: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LADING_", "XDG_", "GRPC_"))}
    return subprocess.run(
        [*LADING, *arguments],
        env={**kept, "HOME": str(home), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=home,
    )


def test_a_login_keeps_whose_certificates_are_believed(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("server", *LOCAL)
    flags = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    with running_server(tmp_path / "server-data", *flags, auth="keys") as server:
        url, key = f"grpcs://{server.target}", server.api_key
        refused = _lading("login", "-", "--host", url, home=tmp_path, stdin=key)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "lading login --ca-file" in refused.stderr
        relative = os.path.relpath(authority.file, tmp_path)
        kept = _lading("login", "-", "--host", url, "--ca-file", relative, home=tmp_path, stdin=key)
        assert kept.returncode == 0, kept.stderr
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        told = _lading("whoami", home=elsewhere, XDG_CONFIG_HOME=str(tmp_path / ".config"))
        assert (told.returncode, told.stderr) == (0, "")
        # Another key for the same server, and the file of before is believed.
        again = _lading("login", "-", "--host", url, home=tmp_path, stdin=key)
        assert again.returncode == 0, again.stderr
        plain = _lading("login", "-", "--host", server.target, "--ca-file", relative, home=tmp_path, stdin=key)
        assert plain.returncode == 2
        assert "grpcs://" in plain.stderr


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def test_a_server_elsewhere_is_reached_through_the_proxy(
    tmp_path: Path, authority: Authority, no_proxies: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    with _serving(tmp_path, authority.issue("server", "store.example")) as server:
        there = f"store.example:{server.target.rpartition(':')[2]}"
        async with running_proxy() as proxy:
            no_proxies.setenv("https_proxy", proxy.url)
            async with lading.Client(f"grpcs://{there}", entity="acme", ca_file=authority.file, retry=0) as client:
                await client.put(tmp_path / "file", "vision/digits", type="dataset")
            # One connection for calls, and one for each lane that was used.
            assert set(proxy.asked) == {there}
            assert len(proxy.asked) >= 2


async def test_no_proxy_leaves_a_server_out(no_proxies: pytest.MonkeyPatch) -> None:
    async with running_proxy() as proxy:
        no_proxies.setenv("https_proxy", proxy.url)
        no_proxies.setenv("no_proxy", "store.invalid")
        async with lading.Client("grpcs://store.invalid:7420", retry=0) as client:
            with pytest.raises(lading.Unavailable):
                await client.whoami()
        assert proxy.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_this_machine_is_never_reached_through_a_proxy(
    tmp_path: Path, authority: Authority, no_proxies: pytest.MonkeyPatch, host: str
) -> None:
    with _serving(tmp_path, authority.issue("server", *LOCAL)) as server:
        url = f"grpcs://{host}:{server.target.rpartition(':')[2]}"
        async with running_proxy() as proxy:
            for name in ("grpc_proxy", "https_proxy", "http_proxy"):
                no_proxies.setenv(name, proxy.url)
            async with lading.Client(url, entity="acme", ca_file=authority.file, retry=0) as client:
                await client.whoami()
            assert proxy.asked == []
