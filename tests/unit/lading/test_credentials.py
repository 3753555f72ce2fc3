"""The file that `lading login` writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import lading
from lading._address import Address
from lading._credentials import Credentials, Login, credentials_path, forget_login, keep_login, read_credentials

STORE = Address("store.example", 443, tls=True)
OTHER = Address("other.example", 7420)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's directory of configuration, not made yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_nothing_is_known_before_the_first_login() -> None:
    assert read_credentials() == Credentials()
    assert not os.path.exists(credentials_path())


def test_what_was_kept_is_read() -> None:
    keep_login(STORE, Login("key", "acme", "vision"))
    keep_login(OTHER, Login("another"))
    assert read_credentials() == Credentials(
        OTHER, {STORE.url: Login("key", "acme", "vision"), OTHER.url: Login("another")}
    )


def test_another_login_takes_the_place_of_the_first() -> None:
    keep_login(STORE, Login("key", "acme"))
    keep_login(STORE, Login("fresh"))
    assert read_credentials().logins == {STORE.url: Login("fresh")}


def test_only_this_user_can_read_it(config: Path) -> None:
    before = os.umask(0)
    try:
        path = Path(keep_login(STORE, Login("key")))
    finally:
        os.umask(before)
    assert path == Path(credentials_path())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.is_relative_to(config)


def test_a_file_that_others_could_read_is_made_private_again(caplog: pytest.LogCaptureFixture) -> None:
    path = Path(keep_login(STORE, Login("key")))
    path.chmod(0o644)
    assert read_credentials().logins[STORE.url].api_key == "key"
    assert "chmod 600" in caplog.text
    keep_login(OTHER, Login("another"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(keep_login(STORE, Login("key")))
    before = path.read_bytes()

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        keep_login(STORE, Login("fresh"))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_login_is_forgotten() -> None:
    keep_login(OTHER, Login("another"))
    keep_login(STORE, Login("key"))
    assert forget_login(STORE)
    assert not forget_login(STORE)
    assert read_credentials() == Credentials(None, {OTHER.url: Login("another")})


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"default": "x", "servers": {}}', '{"default": "", "servers": {"a": 1}}']
)
def test_a_damaged_file_is_named(text: str) -> None:
    path = Path(keep_login(STORE, Login("key")))
    path.write_text(text)
    with pytest.raises(lading.InvalidArgument, match=f"{path} is damaged.*lading login"):
        read_credentials()


def test_a_key_is_not_shown_where_a_login_is_printed() -> None:
    assert "secret" not in repr(Credentials(None, {"a": Login("secret")}))
