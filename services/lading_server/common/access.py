"""Who may call what: the one place where keys are verified. Knows no gRPC but the names of its methods."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from lading_format.digest import blake3_digest
from lading_server.common.callers import ANYBODY, SERVICE, Principal
from lading_server.common.keys import parse_key
from lading_server.common.registry_errors import EntityDenied, KeyInvalid, KeyMissing

_HEADER = "authorization"
_SCHEME = "bearer"
# What a client asks before it has a key.
_FOR_EVERYBODY = frozenset({"/lading.registry.v1.RegistryService/GetServerInfo"})
# What the two services ask of each other.
_FOR_SERVICES = ("/lading.ingest.v1.PinService/", "/lading.registry.v1.KeyService/")
# Keys that are remembered: about 1 MB.
_REMEMBERED = 4096
# 128 bits in hexadecimal: below that it is no generated secret.
_SERVICE_KEY_LENGTH = 32


class KeyGrant(NamedTuple):
    """What a key gives. `expires_at_ms` is in milliseconds since 1970, or None for never."""

    principal: str
    entity: str
    expires_at_ms: int | None


class KeyChecker(Protocol):
    """Knows the keys: the registry's database, or a channel to the registry."""

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """Return what a key gives; None when it is unknown, expired or revoked, or the hash is not its secret's.

        Raises:
            KeysUnavailable: The registry does not answer.
        """
        ...


class _Remembered(NamedTuple):
    secret_hash: bytes
    grant: KeyGrant
    until: float


class RememberedKeys:
    """A KeyChecker that asks another one, and believes a good answer for a while. A bad one is asked for again.

    A key that was revoked goes on working for `seconds` at most.
    """

    def __init__(self, keys: KeyChecker, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._seconds = seconds
        self._clock = clock
        # By the id of the key; the oldest first.
        self._remembered: dict[str, _Remembered] = {}

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """See KeyChecker."""
        now = self._clock()
        known = self._remembered.get(key_id)
        if known is not None and now < known.until and hmac.compare_digest(known.secret_hash, secret_hash):
            return known.grant
        grant = await self._keys.check(key_id, secret_hash)
        if grant is not None:
            expires = grant.expires_at_ms / 1000 if grant.expires_at_ms is not None else float("inf")
            self._remembered.pop(key_id, None)
            self._remembered[key_id] = _Remembered(secret_hash, grant, min(now + self._seconds, expires))
            while len(self._remembered) > _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        return grant


class Access:
    """Tells who makes a call. Safe for many tasks at once."""

    def __init__(self, keys: KeyChecker | None, service_key: str = "") -> None:
        """`keys` is None where callers need none; `service_key` is empty where no service calls."""
        self._keys = keys
        self._service_hash = blake3_digest(service_key.encode()) if service_key else None

    async def admit(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Principal:
        """Return who makes a call.

        Args:
            method: Its full name, `/package.Service/Method`.
            metadata: What came with it, with names in lower case.

        Raises:
            KeyMissing: It needs a key and has none.
            KeyInvalid: Its key is unknown, expired or revoked, or not for this method.
            KeysUnavailable: The registry does not answer.
        """
        if method in _FOR_EVERYBODY:
            return ANYBODY
        if method.startswith(_FOR_SERVICES):
            return self._admit_service(_bearer(metadata))
        if self._keys is None:
            return ANYBODY
        key = parse_key(_bearer(metadata))
        grant = await self._keys.check(key.key_id, key.secret_hash)
        if grant is None:
            raise KeyInvalid("the key is unknown, expired or revoked; ask an administrator for another")
        return Principal(grant.principal, grant.entity, key.key_id)

    def _admit_service(self, bearer: str) -> Principal:
        # Hashes, so that neither length nor content shows in the time that it takes.
        if self._service_hash is None or not hmac.compare_digest(blake3_digest(bearer.encode()), self._service_hash):
            raise KeyInvalid("this is not the service key; give both services the same --service-key-file")
        return SERVICE


def check_entity_of(message: object, principal: Principal) -> None:
    """Raise EntityDenied when a message names an entity that the caller's key is not for.

    A message names one in `entity`, or in the `entity` of its `start`.
    """
    for holder in (message, getattr(message, "start", None)):
        entity = getattr(holder, "entity", "")
        if not principal.may_name(entity):
            raise EntityDenied(f"the key is for entity {principal.entity!r} and not for the one that the call names")


def read_service_key(path: str) -> str:
    """Return the secret in a file. Raises OSError, whose message says what to do."""
    key = Path(path).read_text().strip()
    if len(key) < _SERVICE_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise OSError(
            f"{path} is no service key: write at least {_SERVICE_KEY_LENGTH} random letters and digits into it, "
            "for example by `openssl rand -hex 32`"
        )
    return key


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    values = [value for name, value in metadata if name == _HEADER]
    if not values:
        raise KeyMissing("the call has no key; send it as metadata, `authorization: Bearer lading_…`")
    scheme, _, key = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != _SCHEME:
        raise KeyInvalid("the call's metadata has to have one `authorization`, of the form `Bearer lading_…`")
    return key.strip()
