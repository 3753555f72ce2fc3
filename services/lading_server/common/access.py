"""Who makes a call, and whether that is allowed: the one place where keys are verified. Knows no gRPC."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from lading_format.digest import blake3_digest
from lading_server.common.allowances import UNLIMITED, Allowances
from lading_server.common.callers import ANYBODY, SERVICE, Principal
from lading_server.common.keys import parse_key
from lading_server.common.registry_errors import EntityDenied, KeyInvalid, KeyMissing
from lading_server.common.roles import READS_OF_CONTENT, Required, Role, check_role, required_for

_HEADER = "authorization"
_SCHEME = "bearer"
# Keys that are remembered: about 1 MB.
_REMEMBERED = 4096
# 128 bits in hexadecimal: below that it is no generated secret.
_SERVICE_KEY_LENGTH = 32


class KeyGrant(NamedTuple):
    """What a key gives. `entity` is empty for the operator's.

    `role` is the lesser one of the key's and its member's. `expires_at_ms` is in milliseconds since 1970, or None for
    never.
    """

    principal: str
    entity: str
    role: Role
    expires_at_ms: int | None
    limits: Allowances = UNLIMITED


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

    A key that was revoked goes on working for `seconds` at most, and not at all where `forget` was told.
    """

    def __init__(self, keys: KeyChecker, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._seconds = seconds
        self._clock = clock
        # By the id of the key; the oldest first.
        self._remembered: dict[str, _Remembered] = {}
        # How often something was forgotten: an answer from before that is not remembered.
        self._forgotten = 0

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """See KeyChecker."""
        now = self._clock()
        known = self._remembered.get(key_id)
        if known is not None and now < known.until and hmac.compare_digest(known.secret_hash, secret_hash):
            return known.grant
        return await self.ask(key_id, secret_hash)

    async def ask(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """As `check`, without looking at what is remembered."""
        now, forgotten = self._clock(), self._forgotten
        grant = await self._keys.check(key_id, secret_hash)
        if grant is None:
            known = self._remembered.get(key_id)
            if known is not None and hmac.compare_digest(known.secret_hash, secret_hash):
                # It ended: nobody must recall it.
                del self._remembered[key_id]
        elif forgotten == self._forgotten:
            expires = grant.expires_at_ms / 1000 if grant.expires_at_ms is not None else float("inf")
            self._remembered.pop(key_id, None)
            self._remembered[key_id] = _Remembered(secret_hash, grant, min(now + self._seconds, expires))
            while len(self._remembered) > _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        return grant

    def recall(self, key_id: str, secret_hash: bytes, grace_seconds: float) -> KeyGrant | None:
        """Return what a key gave when it was last asked for; None when that is `grace_seconds` too long ago.

        Asks nobody, and never outlives the key's own end.
        """
        known = self._remembered.get(key_id)
        if known is None or not hmac.compare_digest(known.secret_hash, secret_hash):
            return None
        ends_ms, now = known.grant.expires_at_ms, self._clock()
        is_over = now >= known.until + grace_seconds or (ends_ms is not None and now * 1000 >= ends_ms)
        return None if is_over else known.grant

    def forget(self, key_ids: Iterable[str]) -> None:
        """Ask anew for keys that changed. Told when the change is committed."""
        self._forgotten += 1
        for key_id in key_ids:
            self._remembered.pop(key_id, None)

    def forget_entity(self, entity: str) -> None:
        """As `forget`, for all keys of an entity."""
        self.forget([key_id for key_id, known in self._remembered.items() if known.grant.entity == entity])


class Access:
    """Tells who makes a call. Safe for many tasks at once."""

    def __init__(
        self,
        keys: KeyChecker | None,
        service_key: str = "",
        *,
        keys_for_reading: KeyChecker | None = None,
        keyless: Allowances = UNLIMITED,
    ) -> None:
        """Let callers in.

        Args:
            keys: None where callers need none, and may use `keyless`.
            service_key: Empty where no service calls.
            keys_for_reading: What is asked about callers who only read content, if not `keys`.
        """
        self._keys = keys
        self._keys_for_reading = keys_for_reading or keys
        self._anybody = ANYBODY._replace(limits=keyless)
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
            RoleDenied: The key's role does not allow it, or nobody's does.
        """
        required = required_for(method)
        if required is Required.ANYBODY:
            return ANYBODY
        if required is Required.SERVICE:
            return self._admit_service(_bearer(metadata))
        keys = self._keys_for_reading if method in READS_OF_CONTENT else self._keys
        if keys is None:
            return self._anybody
        key = parse_key(_bearer(metadata))
        grant = await keys.check(key.key_id, key.secret_hash)
        if grant is None:
            raise KeyInvalid("the key is unknown, expired or revoked; ask an administrator for another")
        check_role(method, grant.role)
        return Principal(grant.principal, grant.entity, key.key_id, grant.role, grant.limits)

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
