"""Certificates of a server: what cannot be used is named, and never takes the place of what can."""

from __future__ import annotations

import hashlib
import logging
import ssl
from pathlib import Path

import pytest

from lading_server.common.settings import Settings, load_settings
from lading_server.common.tls import Certificates, CertificatesRefused, shows_certificate
from tests.support.certificates import LOCAL, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server", *LOCAL)


def _settings(pair: Pair, *flags: str) -> Settings:
    return load_settings(["--tls-cert", str(pair.cert), "--tls-key", str(pair.key), *flags], {})


def test_without_certificates_there_is_no_tls() -> None:
    certificates = Certificates(Settings())
    assert not certificates.serves_tls
    assert certificates.server_credentials(demands_certificate=False) is None
    assert certificates.peer_credentials() is None
    certificates.read_again()


def test_files_that_cannot_be_used_are_named_with_the_reason(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    other, locked = authority.issue("other", *LOCAL), authority.issue("locked", *LOCAL, password=b"secret")
    garbage, missing = tmp_path / "garbage", tmp_path / "missing"
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nnone\n")
    for found, words in (
        (Pair(pair.cert, other.key), "no pair of certificate and key"),
        (Pair(garbage, pair.key), "no pair of certificate and key"),
        (Pair(pair.key, pair.cert), "no pair of certificate and key"),
        (Pair(missing, pair.key), f"--tls-cert {missing} cannot be read: No such file"),
        (Pair(pair.cert, missing), f"--tls-key {missing} cannot be read: No such file"),
        (locked, f"--tls-key {locked.key} is encrypted"),
    ):
        with pytest.raises(CertificatesRefused, match=words):
            Certificates(_settings(found))
    flags = ("--tls-client-auth", "required", "--tls-client-ca", str(garbage))
    with pytest.raises(CertificatesRefused, match=f"--tls-client-ca {garbage} holds no certificates"):
        Certificates(_settings(pair, *flags))


def test_what_is_new_is_told_and_what_is_bad_is_refused(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificates = Certificates(_settings(pair))
    certificates.read_again()
    pair.cert.write_bytes(authority.issue("another", *LOCAL).cert.read_bytes())
    certificates.read_again()
    pair.replace(authority.issue("renewed", *LOCAL))
    certificates.read_again()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair.cert.read_text())).hexdigest()
    assert told[0] == ("INFO", "the certificate files have not changed")
    assert told[1][0] == "ERROR"
    assert told[1][1].startswith(f"the certificates in use stay: --tls-cert {pair.cert}")
    assert told[2:] == [("INFO", f"new connections get the certificate with SHA-256 {fingerprint}")]


def test_a_bad_file_of_one_side_keeps_the_other_from_nothing(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shown = authority.issue("client")
    peer = ("--peer-ca", str(authority.file), "--peer-cert", str(shown.cert), "--peer-key", str(shown.key))
    certificates, told = Certificates(_settings(pair, *peer)), []
    certificates.watch_peer(lambda: told.append("changed"))
    pair.key.write_bytes(shown.key.read_bytes())
    shown.replace(authority.issue("renewed"))
    certificates.read_again()
    assert told == ["changed"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_key_that_every_user_may_read_is_warned_of(
    pair: Pair, mode: int, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pair.key.chmod(mode)
    Certificates(_settings(pair))
    assert (f"chmod o= {pair.key}" in caplog.text) is is_told


def test_a_certificate_was_shown_where_grpc_says_so() -> None:
    assert shows_certificate({"transport_security_type": [b"ssl"], "x509_pem_cert": [b"-----BEGIN"]})
    assert not shows_certificate({"transport_security_type": [b"ssl"]})
    assert not shows_certificate({})
