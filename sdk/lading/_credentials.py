"""The file that `lading login` writes: a key for each server, readable by this user alone. Blocks on the disk."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

from platformdirs import user_config_dir

from lading._address import Address, parse_address
from lading._errors import InvalidArgument

_log = logging.getLogger("lading")


@dataclass(frozen=True, slots=True)
class Login:
    """What is kept for one server: a key, and what is meant where a program names no entity and no project.

    `ca_file` is an absolute path: whose certificates are believed there; empty for those that the system believes.
    """

    api_key: str = field(repr=False)
    entity: str = ""
    project: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the file says.

    Attributes:
        default_address: The server that was last logged in to; None when there is none.
        logins: By the server's `Address.url`.
    """

    default_address: Address | None = None
    logins: Mapping[str, Login] = field(default_factory=lambda: MappingProxyType({}))


def credentials_path() -> str:
    """Return where the file is, whether or not it is there."""
    return os.path.join(user_config_dir("lading", appauthor=False), "credentials")


def read_credentials() -> Credentials:
    """Return what the file says; nothing when there is none.

    Raises:
        InvalidArgument: The file is damaged; the message says where it is.
        OSError: It cannot be read.
    """
    path = credentials_path()
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError:
        return Credentials()
    if mode & 0o077:
        _log.warning("%s holds keys and may be read by others. Run: chmod 600 %s", path, path)
    try:
        told = json.loads(text)
        default = parse_address(told["default"]) if told["default"] else None
        return Credentials(default, {url: Login(**login) for url, login in told["servers"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, InvalidArgument) as error:
        raise InvalidArgument(f"{path} is damaged ({error}). Remove it, then log in again: lading login.") from error


def keep_login(address: Address, login: Login) -> str:
    """Keep a login, in place of an earlier one for the same server, and make the server the default one.

    Returns:
        The path of the file.
    """
    kept = read_credentials()
    return _write(replace(kept, default_address=address, logins={**kept.logins, address.url: login}))


def forget_login(address: Address) -> bool:
    """Forget the login for a server; return whether there was one."""
    kept = read_credentials()
    if address.url not in kept.logins:
        return False
    logins = {url: login for url, login in kept.logins.items() if url != address.url}
    default = None if kept.default_address == address else kept.default_address
    _write(Credentials(default, logins))
    return True


def _write(credentials: Credentials) -> str:
    """Write the file whole or not at all; at no moment can others read it."""
    path = credentials_path()
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    told = {
        "default": credentials.default_address.url if credentials.default_address else "",
        "servers": {url: asdict(login) for url, login in credentials.logins.items()},
    }
    temporary = f"{path}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(told, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
