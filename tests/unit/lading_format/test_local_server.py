"""Server and client must come to one path, however each of them writes the address."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading_format.local_server import local_server_path


@pytest.fixture(autouse=True)
def _runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_the_file_lies_in_the_users_runtime_directory(tmp_path: Path) -> None:
    assert local_server_path("127.0.0.1", 7420) == str(tmp_path / "lading" / "servers" / "127.0.0.1_7420.json")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "0.0.0.0"])
def test_every_way_to_write_the_loopback_address_is_one_file(host: str) -> None:
    assert local_server_path(host, 7420) == local_server_path("127.0.0.1", 7420)


def test_an_address_of_version_six_is_a_name_on_every_system() -> None:
    assert Path(local_server_path("::", 7420)).name == "--1_7420.json"


def test_two_ports_are_two_files() -> None:
    assert local_server_path("127.0.0.1", 7420) != local_server_path("127.0.0.1", 7421)


@pytest.mark.filterwarnings("error")
def test_a_machine_without_a_runtime_directory_is_not_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert local_server_path("127.0.0.1", 7420).endswith("127.0.0.1_7420.json")
