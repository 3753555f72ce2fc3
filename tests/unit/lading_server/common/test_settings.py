"""Settings: a flag beats a variable, which beats the default; what cannot be used is named."""

from __future__ import annotations

from dataclasses import fields

import pytest

from lading_server.common.settings import Settings, SettingsError, exposed, limits, load_settings, split_address

NAMES = [field.name for field in fields(Settings)]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def test_without_flags_and_variables_every_setting_has_its_default() -> None:
    assert load_settings([], {}) == Settings()


def test_a_flag_beats_a_variable_which_beats_the_default() -> None:
    variable = {"LADING_MAX_STREAMS": "7"}
    assert load_settings([], variable).max_streams == 7
    assert load_settings(["--max-streams", "9"], variable).max_streams == 9


def test_every_default_is_a_value_that_may_be_given() -> None:
    for name in NAMES:
        default = getattr(Settings(), name)
        if isinstance(default, bool):
            continue
        assert getattr(load_settings([_flag(name), str(default)], {}), name) == default
        assert getattr(load_settings([], {f"LADING_{name.upper()}": str(default)}), name) == default


def test_help_names_every_flag_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(["--help"], {})
    assert ended.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for name in NAMES:
        default = getattr(Settings(), name)
        shown = "none" if default == "" else str(default).lower() if isinstance(default, bool) else str(default)
        assert _flag(name) in words
        assert f"[LADING_{name.upper()}, default {shown}]" in words


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--threads", "many"], {}, "--threads: 'many' is not a number from 1 to 256"),
        ([], {"LADING_THREADS": "0"}, "LADING_THREADS: '0' is not a number from 1 to 256"),
        (["--stream-idle-seconds", "nan"], {}, "--stream-idle-seconds: 'nan' is not a number"),
        (["--max-chunk-bytes", "2097153"], {}, "--max-chunk-bytes: '2097153' is not a number from 1 to 2,097,152"),
        (["--log-format", "xml"], {}, "--log-format: 'xml' is none of json, text"),
        ([], {"LADING_INSECURE": "perhaps"}, "LADING_INSECURE: 'perhaps' is neither true nor false"),
        (["--listen", "nowhere"], {}, "--listen: 'nowhere' is no address"),
        (["--listen", "127.0.0.1:65536"], {}, "--listen: '127.0.0.1:65536' is no address"),
        (["--listen", "127.0.0.1:²"], {}, "--listen: '127.0.0.1:²' is no address"),
        (["--max-message-bytes", "4194303"], {}, "'4194303' is not a number from 4,194,304 to 67,108,864"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_is_allowed(
    arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(arguments, environment)
    assert expected in str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:7420", "192.0.2.1:1", "[::]:7420", "store.example:7420"])
def test_an_address_that_others_can_reach_needs_insecure(listen: str) -> None:
    with pytest.raises(SettingsError, match="--insecure"):
        load_settings(["--listen", listen], {})
    assert load_settings(["--listen", listen, "--insecure"], {}).listen == listen
    assert load_settings(["--listen", listen], {"LADING_INSECURE": "true"}).insecure


TLS = ["--tls-cert", "c", "--tls-key", "k"]
REQUIRED = ["--tls-client-auth", "required", "--tls-client-ca", "ca"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        (["--tls-key", "k"], "--tls-cert and --tls-key go together"),
        (["--peer-ca", "ca", "--peer-cert", "c"], "--peer-cert and --peer-key go together"),
        (["--peer-cert", "c", "--peer-key", "k"], "--peer-cert needs --peer-ca"),
        ([*TLS, "--tls-client-auth", "required"], "required goes with --tls-client-ca"),
        ([*TLS, "--tls-client-ca", "ca"], "none goes without --tls-client-ca"),
        (REQUIRED, "--tls-client-ca needs --tls-cert"),
        ([*TLS, "--tls-client-auth", "optional", "--tls-client-ca", "ca"], "optional goes with --mutual-listen"),
        ([*TLS, *REQUIRED, "--mutual-listen", "127.0.0.1:1"], "required goes without --mutual-listen"),
    ],
)
def test_settings_of_certificates_go_together(arguments: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(arguments, {})


@pytest.mark.parametrize("listen", ["0.0.0.0:7420", "store.example:7420"])
def test_an_address_that_others_can_reach_needs_no_more_than_tls(listen: str) -> None:
    settings = load_settings(["--listen", listen, *TLS], {})
    assert exposed(settings) == []
    assert [flag for flag, _, _ in exposed(load_settings(["--listen", listen, "--insecure"], {}))] == ["--listen"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--services", "ingest", "--registry-target", "far.example:1"],
        ["--services", "registry", "--ingest-target", "far.example:1"],
        ["--services", "registry", "--ingest-target", "127.0.0.1:1", "--ingest-peer-target", "far.example:1"],
    ],
)
def test_the_way_to_a_service_on_another_machine_needs_tls_or_insecure(arguments: list[str]) -> None:
    arguments = [*arguments, "--service-key-file", "k"]
    with pytest.raises(SettingsError, match=r"far\.example:1.*give --peer-ca.*--insecure"):
        load_settings(arguments, {})
    assert exposed(load_settings([*arguments, "--peer-ca", "ca"], {})) == []
    assert len(exposed(load_settings([*arguments, "--insecure"], {}))) == 1


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:7420", "[::1]:7420", "localhost:7420"])
def test_a_loopback_address_needs_nothing(listen: str) -> None:
    assert load_settings(["--listen", listen], {}).listen == listen


def test_an_address_is_host_and_port() -> None:
    assert split_address("[::1]:7420") == ("::1", 7420)
    assert split_address("localhost:0") == ("localhost", 0)


def test_the_password_of_a_database_is_not_shown() -> None:
    assert "secret" not in repr(Settings(database_url="postgresql://lading:secret@db/lading"))


def test_a_limit_is_the_value_of_its_setting_rounded_up() -> None:
    told = {limit.name: limit.value for limit in limits(Settings(stream_idle_seconds=0.5, max_streams=3))}
    assert told["stream_idle_seconds"] == 1
    assert told["max_streams"] == 3


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--services", "registry"], "--service-key-file"),
        (["--services", "registry", "--service-key-file", "k"], "--ingest-target"),
        (["--services", "ingest"], "--service-key-file"),
        (["--services", "ingest", "--service-key-file", "k"], "--registry-target"),
    ],
)
def test_one_half_alone_needs_to_know_of_the_other(arguments: list[str], needed: str) -> None:
    with pytest.raises(SettingsError, match=needed):
        load_settings(arguments, {})


def test_ingest_without_keys_need_not_know_the_registry() -> None:
    settings = load_settings(["--services", "ingest", "--service-key-file", "k", "--auth", "none"], {})
    assert settings.services == "ingest"


@pytest.mark.parametrize("entity", ["", "Acme", "a b"])
def test_a_default_entity_that_is_no_name_is_refused(entity: str) -> None:
    with pytest.raises(SettingsError, match="--default-entity"):
        load_settings(["--default-entity", entity], {})


def test_backups_are_made_more_often_than_the_trash_is_emptied() -> None:
    with pytest.raises(SettingsError, match="--backup-interval-seconds 259200 is more than --trash-seconds 172800"):
        load_settings(["--backup-interval-seconds", "259200"], {})
    assert load_settings(["--backup-interval-seconds", "86400"], {}).backup_interval_seconds == 86400
    assert load_settings(["--trash-seconds", "0"], {}).trash_seconds == 0
