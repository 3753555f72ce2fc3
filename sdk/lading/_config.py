"""Which server, key, entity and project are meant: arguments, variables, files, defaults, in this order."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lading._address import Address, parse_address
from lading._credentials import Credentials, Login, read_credentials
from lading._errors import InvalidArgument, format_errors
from lading._trust import SYSTEM_TRUST, Trust, check_trust
from lading_format.local_server import local_server_path
from lading_format.names import check_entity_name, check_project

URL = "LADING_URL"
API_KEY = "LADING_API_KEY"
ENTITY = "LADING_ENTITY"
PROJECT = "LADING_PROJECT"

DEFAULT_ADDRESS = Address("127.0.0.1", 7420)
DEFAULT_PROJECT = "default"

_log = logging.getLogger("lading")

# A file of three short fields.
_LOCAL_FILE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Wishes:
    """What arguments and variables say; empty, or None, where they say nothing."""

    address: Address | None
    api_key: str = field(repr=False)
    entity: str
    project: str
    trust: Trust = SYSTEM_TRUST


@dataclass(frozen=True, slots=True)
class Settings:
    """What is meant.

    Attributes:
        address: The registry's.
        api_key: Empty where none is known.
        entity: Empty for the one that the key is for.
        project: What is meant where a reference names none.
        trust: The files of TLS. Without effect where the address has none.
    """

    address: Address
    api_key: str = field(repr=False)
    entity: str
    project: str
    trust: Trust = SYSTEM_TRUST


def wishes_from(
    url: str | None,
    api_key: str | None,
    entity: str | None,
    project: str | None,
    environ: Mapping[str, str],
    trust: Trust = SYSTEM_TRUST,
) -> Wishes:
    """Return what arguments say, and else the environment. Reads no file.

    Raises:
        InvalidArgument: The address, the entity, the project or the key is malformed.
    """
    chosen = Wishes(
        address=_address(url if url is not None else environ.get(URL, "")),
        api_key=(api_key if api_key is not None else environ.get(API_KEY, "")).strip(),
        entity=entity if entity is not None else environ.get(ENTITY, ""),
        project=project if project is not None else environ.get(PROJECT, ""),
        trust=trust,
    )
    with format_errors():
        if chosen.entity:
            check_entity_name(chosen.entity)
        if chosen.project:
            check_project(chosen.project)
    if not chosen.api_key.isascii() or not chosen.api_key.isprintable():
        raise InvalidArgument("The API key holds characters that no key has. Copy it again.")
    return chosen


def settle(wishes: Wishes) -> Settings:
    """Return what is meant, with what the files of this user's say. Blocks on the disk.

    A login is taken or left as a whole: its entity, its project and whose certificates it believes are not meant for
    another key.

    Raises:
        InvalidArgument: The credentials file is damaged, or certificates are to be used without TLS.
        OSError: The credentials file cannot be read.
    """
    # Whoever says which server and which key needs no file, not even an intact one.
    kept = Credentials() if wishes.address and wishes.api_key else read_credentials()
    address = wishes.address or kept.default_address or _local_address()
    check_trust(wishes.trust, address)
    login = kept.logins.get(address.url) if not wishes.api_key else None
    if login is None:
        login = Login(wishes.api_key or (_local_key(address) if address.is_loopback else ""))
    return Settings(
        address,
        login.api_key,
        wishes.entity or login.entity,
        wishes.project or login.project or DEFAULT_PROJECT,
        replace(wishes.trust, ca_file=wishes.trust.ca_file or login.ca_file),
    )


def _address(text: str) -> Address | None:
    return parse_address(text) if text else None


def _local_address() -> Address:
    """Return the default address, with TLS if the server there has it."""
    told = _local_word(DEFAULT_ADDRESS).get("address", "")
    return replace(DEFAULT_ADDRESS, tls=told.startswith("grpcs://"))


def _local_key(address: Address) -> str:
    """Return the key of a server on this machine that this user runs; empty where there is none."""
    key_file = _local_word(address).get("key_file", "")
    try:
        return _read_private(key_file).decode().strip() if key_file else ""
    except FileNotFoundError:
        return ""  # a server that took its key along
    except (OSError, ValueError) as error:
        _unusable(address, error)
        return ""


def _local_word(address: Address) -> dict[str, str]:
    """Return what a server on this machine that this user runs left for its user; nothing where there is none."""
    try:
        told = json.loads(_read_private(local_server_path(address.bare_host, address.port)))
        return {name: value for name, value in told.items() if isinstance(value, str)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        _unusable(address, error)
        return {}


def _unusable(address: Address, error: Exception) -> None:
    # The call goes on without a key; where one is needed, the server's answer says what to do.
    _log.warning("What the server at %s left for its user cannot be used: %s", address.target, error)


def _read_private(path: str) -> bytes:
    """Return the content of a file of this user's that nobody else may read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is another's, or others may read it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ValueError(f"{path} has to be a file of yours with mode 0600")
        return os.read(fd, _LOCAL_FILE_BYTES)
    finally:
        os.close(fd)
