"""API keys: how they are written, made and hashed. Pure but for the randomness of new ones.

A key is `lading_`, 12 characters of key id, `_`, and 43 characters of secret: 256 random bits in URL-safe base64. The
prefix makes a leaked key recognisable, the id may stand in a log, and the secret never does.
"""

from __future__ import annotations

import base64
import re
import secrets
import string
from typing import NamedTuple

from lading_format.digest import blake3_digest
from lading_server.common.registry_errors import KeyInvalid

_ID_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 12
_SECRET_BYTES = 32
_KEY = re.compile(r"lading_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")


class ApiKey(NamedTuple):
    """A key, with its secret: not to be kept, and shown once."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        """Hide the secret from tracebacks and logs."""
        return f"ApiKey({self.key_id}, …)"

    @property
    def text(self) -> str:
        """What callers send as `authorization: Bearer …`."""
        return f"lading_{self.key_id}_{self.secret}"

    @property
    def secret_hash(self) -> bytes:
        """What is kept of the secret, 32 bytes.

        One fast hash is right here. Slow ones (scrypt, Argon2) make it expensive to guess what people choose; nobody
        guesses 256 random bits, so all that a slow one would add is a tenth of a second to every call.
        """
        return blake3_digest(self.secret.encode())


def new_key() -> ApiKey:
    """Return a key that nobody has."""
    key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
    secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")
    return ApiKey(key_id, secret)


def parse_key(text: str) -> ApiKey:
    """Return the parts of a key. Raises KeyInvalid, whose message does not repeat it."""
    parts = _KEY.fullmatch(text)
    if parts is None:
        raise KeyInvalid("the key is not of the form lading_<id>_<secret>; give it as it was shown, whole")
    return ApiKey(parts[1], parts[2])
