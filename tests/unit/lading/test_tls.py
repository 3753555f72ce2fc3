"""Which certificates a client believes and shows: arguments, variables, and what a login kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lading
from lading._address import Address
from lading._config import settle, wishes_from
from lading._credentials import Login, keep_login
from lading._handshake import handshake_error
from lading._tls import channel_credentials
from lading._trust import SYSTEM_TRUST, Trust, check_trust, trust_from
from lading_format.local_server import local_server_path
from tests.support.certificates import Authority, Pair

STORE = Address("store.example", 443, tls=True)
PLAIN = Address("store.example", 443)
_OLD_WORDS = "Ssl handshake failed: SSL_ERROR_SSL: error:100000f7:SSL routines:OPENSSL_internal"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any files."""
    for variable in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        directory = tmp_path / variable
        directory.mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(directory))
    return tmp_path


def test_arguments_beat_variables_which_beat_the_login() -> None:
    keep_login(STORE, Login("key", ca_file="/kept.pem"))
    variables = {"LADING_CA_FILE": "/variable.pem", "LADING_CLIENT_CERT": "/c.pem", "LADING_CLIENT_KEY": "/c.key"}

    def settled(ca_file: str | None, environ: dict[str, str]) -> Trust:
        return settle(wishes_from(STORE.url, None, None, None, {}, trust_from(ca_file, None, None, environ))).trust

    assert settled("/argument.pem", variables) == Trust("/argument.pem", "/c.pem", "/c.key")
    assert settled(None, variables) == Trust("/variable.pem", "/c.pem", "/c.key")
    assert settled(None, {}) == Trust("/kept.pem")
    assert settled("", variables | {"LADING_CA_FILE": ""}) == Trust("/kept.pem", "/c.pem", "/c.key")
    other = settle(wishes_from("grpcs://a.example:1", None, None, None, {}))
    assert other.trust == SYSTEM_TRUST


@pytest.mark.parametrize("arguments", [("/c.pem", None), (None, "/c.key")])
def test_a_client_certificate_and_its_key_go_together(arguments: tuple[str | None, str | None]) -> None:
    with pytest.raises(lading.InvalidArgument, match="go together"):
        trust_from(None, *arguments, {})


def test_certificates_are_not_forgotten_where_the_address_has_no_tls() -> None:
    with pytest.raises(lading.InvalidArgument, match=r"grpcs://store\.example:443"):
        check_trust(Trust("/ca.pem"), PLAIN)
    with pytest.raises(lading.InvalidArgument, match=r"grpcs://store\.example:443"):
        lading.IngestClient(PLAIN.target, entity="acme", ca_file="/ca.pem")
    check_trust(Trust("/ca.pem"), STORE)
    check_trust(SYSTEM_TRUST, PLAIN)
    # A variable that is meant for other servers.
    check_trust(Trust("/ca.pem"), Address("127.0.0.1", 7420))


def test_files_that_cannot_be_used_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")
    locked = authority.issue("locked", password=b"secret")
    for pair, words in (
        (Pair(one.cert, other.key), "no pair"),
        (Pair(one.key, one.key), "no pair"),
        (locked, "encrypt"),
    ):
        with pytest.raises(lading.InvalidArgument, match=words):
            channel_credentials(Trust("", *map(str, pair)))
    with pytest.raises(lading.InvalidArgument, match="holds no certificates"):
        channel_credentials(Trust(str(one.key)))
    with pytest.raises(FileNotFoundError):
        channel_credentials(Trust(str(tmp_path / "missing")))
    assert caplog.text == ""
    one.key.chmod(0o640)
    channel_credentials(Trust(str(authority.file), *map(str, one)))
    assert f"chmod 600 {one.key}" in caplog.text


async def test_a_file_that_is_missing_is_told_by_the_first_call(tmp_path: Path) -> None:
    async with lading.Client("grpcs://store.example:443", api_key="key", ca_file=tmp_path / "missing") as client:
        with pytest.raises(FileNotFoundError, match="missing"):
            await client.whoami()


@pytest.mark.parametrize(("told", "tls"), [("grpcs://127.0.0.1:7420", True), ("127.0.0.1:7420", False)])
def test_the_server_of_this_machine_says_whether_it_has_tls(told: str, tls: bool) -> None:
    path = Path(local_server_path("127.0.0.1", 7420))
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(json.dumps({"address": told, "key_file": "", "pid": 1}))
    path.chmod(0o600)
    assert settle(wishes_from(None, None, None, None, {})).address == Address("127.0.0.1", 7420, tls)
    # Whoever names the address says it all.
    assert not settle(wishes_from("127.0.0.1:7420", None, None, None, {})).address.tls


@pytest.mark.parametrize(
    "details",
    [
        "Socket closed",
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: Connection refused",
        "",
    ],
)
def test_what_is_not_about_tls_stays_the_general_error(details: str) -> None:
    assert handshake_error(details, STORE) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Peer name store.example is not in peer certificate", "is not for the name store.example"),
        (f"{_OLD_WORDS}:CERTIFICATE_VERIFY_FAILED", "or has expired"),
        (f"{_OLD_WORDS}:WRONG_VERSION_NUMBER", "has no TLS"),
    ],
)
def test_the_words_of_the_oldest_grpc_are_known(words: str, told: str) -> None:
    """Seen with grpcio 1.62.3; what the installed one says is in tests/integration/test_tls_errors.py."""
    error = handshake_error(
        f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: {words}", STORE
    )
    assert type(error) is lading.Untrusted
    assert told in error.message
