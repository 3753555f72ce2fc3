"""Settings: one table of fields, from which flags, `LADING_*` variables, `--help` and the limits are made."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from lading_format.errors import InvalidName
from lading_format.names import check_entity_name

MIB = 1 << 20


class Limit(NamedTuple):
    """A number that callers have to stay within, as GetCapabilities tells it."""

    name: str
    value: int
    description: str


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message says which and what is allowed."""


class _Setting(NamedTuple):
    help: str
    parse: Callable[[str], Any]
    is_limit: bool
    zero_is_none: bool = False


def _setting(default: object, help_text: str, parse: Callable[[str], Any] = str, *, is_limit: bool = False) -> Any:
    # Only numbers and choices are shown: a URL may hold a password.
    return field(default=default, repr=parse is not str, metadata={"setting": _Setting(help_text, parse, is_limit)})


def _allowance(help_text: str, most: int) -> Any:
    """A limit that there need not be: 0 is none, and the default."""
    return field(default=0, metadata={"setting": _Setting(f"{help_text}; 0 for any", _between(0, most), True, True)})


def _between(low: float, high: float, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise SettingsError(f"{text!r} is not a number from {low:,} to {high:,}")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise SettingsError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return parse


def _flag(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "0", "false", "no", ""):
        raise SettingsError(f"{text!r} is neither true nor false")
    return text.lower() in ("1", "true", "yes")


def _address(text: str) -> str:
    split_address(text)
    return text


def _entity(text: str) -> str:
    try:
        return check_entity_name(text)
    except InvalidName as error:
        raise SettingsError(error.message) from error


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`. Raises SettingsError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{address!r} is no address: write host:port, for example 127.0.0.1:7420")
    return host.strip("[]"), int(port)


def shown_address(host: str, port: int) -> str:
    """Return what `split_address` takes."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _target(text: str) -> str:
    if text:
        split_address(text)
    return text


@dataclass(frozen=True)
class Settings:
    """Everything about a server that can be chosen. Defaults suit one machine with a few gigabytes of memory."""

    data: str = _setting("./lading-data", "directory for packs, index and lock")
    listen: str = _setting("127.0.0.1:7420", "address to serve gRPC on; port 0 takes a free one", _address)
    insecure: bool = _setting(False, "go without TLS where others may be on the way", _flag)
    tls_cert: str = _setting("", "certificate with its chain, PEM: serve TLS; SIGHUP reads it and the key again")
    tls_key: str = _setting("", "key of --tls-cert, PEM")
    tls_client_auth: str = _setting(
        "none",
        "client certificates: none, required, or optional: required at --mutual-listen alone",
        _one_of("none", "optional", "required"),
    )
    tls_client_ca: str = _setting("", "whose client certificates are good, PEM")
    mutual_listen: str = _setting(
        "", "with --tls-client-auth optional: a second address, where certificates are required", _target
    )
    services: str = _setting(
        "both", "what this process serves: both, ingest or registry", _one_of("both", "ingest", "registry")
    )
    ingest_target: str = _setting(
        "", "with --services registry: where ingest is, for the registry and for clients, host:port", _target
    )
    ingest_peer_target: str = _setting(
        "", "where the registry reaches ingest, if not where clients do, host:port", _target
    )
    registry_target: str = _setting("", "with --services ingest: where the registry is, host:port", _target)
    peer_ca: str = _setting("", "whose certificate the other service has, PEM: dial it with TLS")
    peer_cert: str = _setting("", "certificate to show to the other service, PEM")
    peer_key: str = _setting("", "key of --peer-cert, PEM")
    service_key_file: str = _setting("", "file with the secret by which ingest and registry know each other")
    auth: str = _setting("keys", "keys, or none: whoever reaches the port may do everything", _one_of("keys", "none"))
    default_entity: str = _setting("default", "entity that the first start makes, with an admin key", _entity)
    key_cache_seconds: float = _setting(
        60.0,
        "how long a good key is believed, and so how long a revoked one works",
        _between(0, 86400, float),
        is_limit=True,
    )
    key_grace_seconds: float = _setting(
        3600.0,
        "how long a key that was good may still read while the registry cannot be asked",
        _between(0, 30 * 86400, float),
        is_limit=True,
    )
    default_quota_bytes: int = _allowance("bytes that an entity may store, unless the operator says otherwise", 1 << 62)
    max_streams_per_key: int = _allowance("streaming calls of one key open at once, unless the operator says", 100_000)
    max_streams_per_entity: int = _allowance(
        "streaming calls of one entity open at once, unless the operator says", 100_000
    )
    calls_per_second_per_key: int = _allowance("calls a second of one key, unless the operator says", 1_000_000)
    calls_per_second_per_entity: int = _allowance("calls a second of one entity, unless the operator says", 1_000_000)
    database_url: str = _setting("", "index in PostgreSQL: postgresql://…; empty for SQLite below the data directory")
    registry_database_url: str = _setting(
        "", "names in PostgreSQL: postgresql://…; empty for SQLite below the data directory"
    )
    metrics_host: str = _setting("127.0.0.1", "address to serve Prometheus on")
    metrics_port: int = _setting(0, "port for Prometheus; 0 for none", _between(0, 65535))
    log_level: str = _setting("info", "debug, info, warning or error", _one_of("debug", "info", "warning", "error"))
    log_format: str = _setting("json", "json or text", _one_of("json", "text"))
    threads: int = _setting(
        min(8, (os.cpu_count() or 1) + 2), "worker threads for hashing and pack files", _between(1, 256)
    )
    drain_seconds: float = _setting(30.0, "how long a stopping server waits for calls", _between(0, 86400, float))
    min_free_bytes: int = _setting(512 * MIB, "free space below which writes are refused", _between(0, 1 << 50))
    backup_interval_seconds: float = _setting(
        0.0,
        "how often `lading backup` runs, if it does: checked against --trash-seconds; 0 for not told",
        _between(0, 366 * 86400, float),
    )
    check_bytes_per_day: int = _setting(
        0,
        "bytes of packs that are checked a day by itself, spread over it; 0 for none",
        _between(0, 1 << 60),
    )
    pack_target_bytes: int = _setting(256 * MIB, "size at which a pack is sealed", _between(MIB, 1 << 36))
    group_commit_bytes: int = _setting(16 * MIB, "bytes after which a group is committed", _between(1, 1 << 30))
    group_commit_milliseconds: int = _setting(50, "milliseconds after which a group is committed", _between(0, 10_000))
    max_message_bytes: int = _setting(
        4 * MIB,
        "size of a gRPC message; the default of gRPC in every language",
        # An answer has up to 3 MiB of payload, and what frames thousands of small files is some of a MiB more.
        _between(4 * MIB, 64 * MIB),
        is_limit=True,
    )
    max_chunk_bytes: int = _setting(2 * MIB, "size of a chunk", _between(1, 2 * MIB), is_limit=True)
    max_streams: int = _setting(64, "streaming calls open at once", _between(1, 100_000), is_limit=True)
    window_bytes: int = _setting(
        32 * MIB, "unacknowledged bytes of a PutChunks stream", _between(4 * MIB, 1 << 30), is_limit=True
    )
    stream_idle_seconds: float = _setting(
        60.0, "how long a stream may make no progress", _between(0.01, 86400, float), is_limit=True
    )
    session_ttl_seconds: float = _setting(
        3600.0, "how long a session lasts without a call", _between(1, 30 * 86400, float), is_limit=True
    )
    upload_idle_seconds: float = _setting(
        7 * 86400.0,
        "how long an upload is remembered that nobody continues",
        _between(1, 366 * 86400, float),
        is_limit=True,
    )
    gc_period_seconds: float = _setting(
        3600.0, "how often garbage is collected by itself; 0 for never", _between(0, 366 * 86400, float)
    )
    max_page_size: int = _setting(10_000, "entries of one page of a listing", _between(1, 100_000), is_limit=True)
    max_digests_per_call: int = _setting(
        16_384, "digests of one FindMissingChunks or StatBlobs", _between(1, 100_000), is_limit=True
    )
    max_chunks_per_message: int = _setting(4096, "chunks of one PutChunks message", _between(1, 100_000), is_limit=True)
    max_blobs_per_message: int = _setting(
        4096, "recipes of one CommitBlobs message", _between(1, 100_000), is_limit=True
    )
    max_chunks_per_blob: int = _setting(
        MIB, "chunks of one blob: 36 bytes of memory each while it is committed", _between(1, 1 << 24), is_limit=True
    )
    max_tree_entries: int = _setting(2_000_000, "entries of one tree", _between(1, 1 << 26), is_limit=True)
    max_ranges_per_call: int = _setting(16_384, "ranges of one ReadBlobs", _between(1, 100_000), is_limit=True)
    max_metadata_bytes: int = _setting(
        256 << 10, "JSON of one version's metadata, or of a run's config or summary", _between(2, MIB), is_limit=True
    )
    max_description_bytes: int = _setting(256 << 10, "UTF-8 of one card", _between(0, MIB), is_limit=True)
    max_tags: int = _setting(100, "tags of one version or collection", _between(1, 10_000), is_limit=True)
    max_ref_changes: int = _setting(100, "aliases and links changed in one call", _between(1, 10_000), is_limit=True)
    max_metric_points: int = _setting(10_000, "metric points of one call", _between(1, 100_000), is_limit=True)
    max_lineage_nodes: int = _setting(
        1000, "versions and runs of one lineage graph", _between(1, 100_000), is_limit=True
    )
    trash_seconds: float = _setting(
        2 * 86400.0,
        "how long what nothing needs any more can still be taken out of the trash",
        _between(0, 366 * 86400, float),
        is_limit=True,
    )
    undelete_seconds: float = _setting(
        7 * 86400.0,
        "how long what was deleted can be had back before it is purged; 0 purges at once",
        _between(0, 10 * 366 * 86400, float),
        is_limit=True,
    )
    run_timeout_seconds: float = _setting(
        300.0, "silence after which a run counts as crashed", _between(1, 30 * 86400, float), is_limit=True
    )
    retention_period_seconds: float = _setting(
        3600.0,
        "how often versions are deleted whose time is over or that no rule keeps; 0 for never by itself",
        _between(0, 30 * 86400, float),
    )


# Limits that are part of the format, and so are no settings.
_FIXED_LIMITS = (
    Limit("max_path_bytes", 1024, "UTF-8 bytes of a path in a tree"),
    Limit("max_uri_bytes", 4096, "bytes of a reference's URI"),
)


def limits(settings: Settings) -> list[Limit]:
    """Return every limit that there is, by name, for GetCapabilities and GetServerInfo.

    Fractions of a second are rounded up.
    """
    named = [
        Limit(name, -int(-getattr(settings, name) // 1), setting.help)
        for name, setting in _settings()
        if setting.is_limit and (getattr(settings, name) or not setting.zero_is_none)
    ]
    return sorted([*named, *_FIXED_LIMITS])


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line and an environment; a flag beats a variable, which beats the default.

    Raises SettingsError. `--help` prints and exits, as argparse does.
    """
    given = vars(_parser().parse_args(arguments))
    values: dict[str, Any] = {}
    for name, setting in _settings():
        flag, variable = _flag_of(name), _variable_of(name)
        for source, text in ((flag, given[name]), (variable, environment.get(variable))):
            if text is not None:
                try:
                    values[name] = setting.parse(text)
                except SettingsError as error:
                    raise SettingsError(f"{source}: {error}") from error
                break
    settings = Settings(**values)
    _check_tls(settings)
    _check_services(settings)
    _check_exposure(settings)
    _check_backups(settings)
    return settings


def _settings() -> list[tuple[str, _Setting]]:
    return [(one.name, one.metadata["setting"]) for one in fields(Settings)]


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable_of(name: str) -> str:
    return "LADING_" + name.upper()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lading serve",
        description="Serve ingest and registry. Every setting is a flag and an environment variable; the flag wins.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
        allow_abbrev=False,
    )
    for name, setting in _settings():
        default = next(one.default for one in fields(Settings) if one.name == name)
        shown = "none" if default == "" else str(default).lower() if isinstance(default, bool) else f"{default}"
        help_text = f"{setting.help} [{_variable_of(name)}, default {shown}]"
        if isinstance(default, bool):
            parser.add_argument(_flag_of(name), dest=name, action="store_const", const="true", help=help_text)
        else:
            parser.add_argument(_flag_of(name), dest=name, metavar=_metavar(name), help=help_text)
    return parser


def _metavar(name: str) -> str:
    return name.rpartition("_")[2].upper()


def _check_tls(settings: Settings) -> None:
    """Raise SettingsError unless the settings of certificates go together."""
    for one, other in (("tls_cert", "tls_key"), ("peer_cert", "peer_key")):
        if bool(getattr(settings, one)) != bool(getattr(settings, other)):
            raise SettingsError(f"{_flag_of(one)} and {_flag_of(other)} go together")
    auth = f"--tls-client-auth {settings.tls_client_auth}"
    if (settings.tls_client_auth == "none") == bool(settings.tls_client_ca):
        raise SettingsError(f"{auth} goes {'with' if settings.tls_client_ca == '' else 'without'} --tls-client-ca")
    if (settings.tls_client_auth == "optional") != bool(settings.mutual_listen):
        raise SettingsError(f"{auth} goes {'without' if settings.mutual_listen else 'with'} --mutual-listen")
    if settings.tls_client_ca and not settings.tls_cert:
        raise SettingsError("--tls-client-ca needs --tls-cert: only where there is TLS can certificates be shown")
    if settings.peer_cert and not settings.peer_ca:
        raise SettingsError("--peer-cert needs --peer-ca: only over TLS can it be shown")


def _check_exposure(settings: Settings) -> None:
    """Raise SettingsError where secrets would go in the clear past other machines, and nobody accepted that."""
    if settings.insecure:
        return
    for flag, address, remedy in exposed(settings):
        raise SettingsError(
            f"{flag}: {address} is not on this machine alone, and there is no TLS: whoever is on the way reads keys "
            f"and content; {remedy}, or accept that with --insecure"
        )


def _check_backups(settings: Settings) -> None:
    """Raise SettingsError where a backup could be older than what is still there of the content that it names."""
    if settings.backup_interval_seconds > settings.trash_seconds:
        raise SettingsError(
            f"--backup-interval-seconds {settings.backup_interval_seconds:g} is more than --trash-seconds "
            f"{settings.trash_seconds:g}: content that a backup names could be gone before the next one is made; "
            "back up more often, or keep the trash for longer"
        )


def exposed(settings: Settings) -> list[tuple[str, str, str]]:
    """Return the flags, addresses and remedies of the ways that others may be on and that have no TLS."""
    ways = []
    if not settings.tls_cert and not _is_loopback(settings.listen):
        ways.append(("--listen", settings.listen, "give --tls-cert and --tls-key"))
    if settings.services != "both" and not settings.peer_ca:
        is_registry = settings.services == "registry"
        flag, target = (
            ("--ingest-target", ingest_dial_target(settings))
            if is_registry
            else ("--registry-target", settings.registry_target)
        )
        if target and not _is_loopback(target):
            ways.append((flag, target, "give --peer-ca"))
    return ways


def ingest_dial_target(settings: Settings) -> str:
    """Return where the registry dials ingest, which need not be where clients do."""
    return settings.ingest_peer_target or settings.ingest_target


def _is_loopback(address: str) -> bool:
    host, _ = split_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_services(settings: Settings) -> None:
    """Raise SettingsError unless a process that serves one half can reach the other, and be known there."""
    if settings.services == "both":
        return
    needed = ["service_key_file"]
    if settings.services == "registry":
        needed.append("ingest_target")
    elif settings.auth == "keys":
        needed.append("registry_target")
    for name in needed:
        if not getattr(settings, name):
            raise SettingsError(f"--services {settings.services} needs {_flag_of(name)}; see --help")
