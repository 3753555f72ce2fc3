"""Which server, key, entity and project are meant."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import lading
from lading._address import Address
from lading._config import DEFAULT_ADDRESS, Settings, Wishes, settle, wishes_from
from lading._credentials import Login, keep_login
from lading_format.local_server import local_server_path

STORE = Address("store.example", 443, tls=True)
LOCAL = Address("127.0.0.1", 7421)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any files."""
    for variable in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        directory = tmp_path / variable
        directory.mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(directory))
    return tmp_path


def _settings(
    url: str | None = None,
    api_key: str | None = None,
    entity: str | None = None,
    project: str | None = None,
    **environ: str,
) -> Settings:
    return settle(wishes_from(url, api_key, entity, project, environ))


def _leave_word(home: Path, address: Address = LOCAL, key: str = "local-key") -> Path:
    """Do what a server does for the shells of its user."""
    key_file = home / "admin.key"
    key_file.write_text(key + "\n")
    key_file.chmod(0o600)
    path = Path(local_server_path(address.bare_host, address.port))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps({"address": address.target, "key_file": str(key_file), "pid": os.getpid()}))
    path.chmod(0o600)
    return path


def test_without_any_wish_it_is_the_server_of_this_machine() -> None:
    assert _settings() == Settings(DEFAULT_ADDRESS, "", "", "default")


def test_arguments_beat_variables() -> None:
    assert _settings(
        "a.example:1",
        "argument",
        "acme",
        "vision",
        LADING_URL="b.example:2",
        LADING_API_KEY="variable",
        LADING_ENTITY="other",
        LADING_PROJECT="else",
    ) == Settings(Address("a.example", 1), "argument", "acme", "vision")


def test_variables_beat_the_credentials() -> None:
    keep_login(STORE, Login("kept", "acme", "vision"))
    assert _settings(
        LADING_URL="grpcs://store.example:443", LADING_API_KEY="variable", LADING_ENTITY="other", LADING_PROJECT="else"
    ) == Settings(STORE, "variable", "other", "else")


def test_credentials_are_those_of_the_server_that_is_meant() -> None:
    keep_login(STORE, Login("kept", "acme", "vision"))
    keep_login(Address("a.example", 1), Login("another"))
    assert _settings("grpcs://store.example:443") == Settings(STORE, "kept", "acme", "vision")
    assert _settings("a.example:1") == Settings(Address("a.example", 1), "another", "", "default")
    assert _settings("b.example:2").api_key == ""


def test_another_key_is_not_used_with_the_entity_of_a_login() -> None:
    keep_login(STORE, Login("kept", "acme", "vision"))
    assert _settings(LADING_API_KEY="variable") == Settings(STORE, "variable", "", "default")


def test_who_says_server_and_key_needs_no_file() -> None:
    Path(keep_login(STORE, Login("kept"))).write_text("damaged")
    assert _settings(STORE.url, "argument").api_key == "argument"
    with pytest.raises(lading.InvalidArgument, match="damaged"):
        _settings(STORE.url)


def test_a_key_for_tls_is_not_sent_without() -> None:
    keep_login(STORE, Login("kept"))
    assert _settings("grpc://store.example:443").api_key == ""


def test_the_last_login_says_which_server_is_meant() -> None:
    keep_login(LOCAL, Login("first"))
    keep_login(STORE, Login("kept"))
    assert _settings().address == STORE
    assert _settings(LADING_URL="a.example:1").address == Address("a.example", 1)


def test_a_server_of_this_machine_leaves_its_key(home: Path) -> None:
    _leave_word(home)
    assert _settings(LOCAL.url).api_key == "local-key"
    assert _settings("localhost:7421").api_key == "local-key"
    assert _settings("127.0.0.1:7422").api_key == ""
    assert _settings("store.example:7421").api_key == ""


def test_credentials_beat_what_a_local_server_left(home: Path) -> None:
    _leave_word(home)
    keep_login(LOCAL, Login("kept"))
    assert _settings(LOCAL.url).api_key == "kept"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_what_others_may_read_is_not_believed(home: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    _leave_word(home).chmod(mode)
    assert _settings(LOCAL.url).api_key == ""
    assert "0600" in caplog.text


def test_a_key_file_that_others_may_read_is_not_believed(home: Path) -> None:
    _leave_word(home)
    (home / "admin.key").chmod(0o644)
    assert _settings(LOCAL.url).api_key == ""


def test_what_a_link_leads_to_is_not_believed(home: Path) -> None:
    path = _leave_word(home)
    path.rename(home / "elsewhere")
    path.symlink_to(home / "elsewhere")
    assert _settings(LOCAL.url).api_key == ""


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key_file": 3}', '{"address": "127.0.0.1:7421"}', "\xff"])
def test_a_damaged_word_of_a_server_is_as_none(home: Path, text: str) -> None:
    _leave_word(home).write_bytes(text.encode("latin-1"))
    assert _settings(LOCAL.url).api_key == ""


def test_a_server_without_keys_says_so(home: Path) -> None:
    path = _leave_word(home)
    path.write_text(json.dumps({"address": LOCAL.target, "key_file": "", "pid": 1}))
    assert _settings(LOCAL.url).api_key == ""


def test_empty_variables_are_as_none() -> None:
    assert wishes_from(None, None, None, None, {"LADING_URL": "", "LADING_API_KEY": ""}) == Wishes(None, "", "", "")


def test_a_key_is_taken_without_the_line_end_that_it_was_read_with() -> None:
    assert _settings(api_key="key\n").api_key == "key"


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "http://store.example"},
        {"entity": "Acme Corp"},
        {"project": "a/b"},
        {"api_key": "two\nlines"},
        {"api_key": "schlüssel"},
    ],
)
def test_what_is_malformed_is_refused_before_any_call(arguments: dict[str, str]) -> None:
    with pytest.raises(lading.InvalidArgument):
        lading.Client(**arguments)  # type: ignore[arg-type]


def test_a_client_reads_no_file_before_its_first_call(home: Path) -> None:
    credentials = Path(keep_login(STORE, Login("kept")))
    credentials.write_text("damaged")
    lading.Client()
