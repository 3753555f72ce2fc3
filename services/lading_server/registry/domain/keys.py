"""Keys: whom each belongs to, and the first one."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from pathlib import Path

from lading_server.common.access import KeyGrant
from lading_server.common.keys import new_key
from lading_server.registry.store.store import RegistryStore

ADMIN = "admin"
"""The name and the role of whoever has the first key."""
ADMIN_KEY_FILE = "admin.key"


class Keys:
    """A KeyChecker over the registry's own database."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """See KeyChecker.check. Never raises KeysUnavailable: here they are."""
        row = await self._store.keys.find(key_id)
        if row is None or not hmac.compare_digest(row.secret_hash, secret_hash) or row.revoked_at_ms is not None:
            return None
        if row.expires_at_ms is not None and row.expires_at_ms <= self._store.now_ms():
            return None
        return KeyGrant(row.principal, row.entity, row.expires_at_ms)

    async def make_first(self, directory: Path, entity: str) -> bool:
        """Make an administrator's key for an entity, if there is no key yet, and leave it in a file of the directory.

        The file is durable before the key counts: what a crash leaves is a file without a key, and the next start
        replaces it; never a key that nobody has.

        Raises:
            OSError: The file cannot be written.
        """
        if await self._store.keys.any():
            return False
        key = new_key()
        adding = self._store.keys.first(entity, ADMIN, ADMIN, key.key_id, key.secret_hash, self._store.now_ms())
        async with adding as is_first:
            if is_first:
                await asyncio.to_thread(_write_secret, directory / ADMIN_KEY_FILE, key.text)
        return is_first


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all, and durably."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    temporary = f".{path.name}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)
