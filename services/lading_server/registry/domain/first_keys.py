"""The keys that a server makes by itself: an admin's for the first entity, and the operator's."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from lading_server.common.callers import Caller
from lading_server.common.keys import new_key
from lading_server.common.roles import Role
from lading_server.registry.store.keys import KeyRow, take_turn
from lading_server.registry.store.schema import MemberKind
from lading_server.registry.store.store import RegistryStore

ADMIN = "admin"
"""The name of whoever has the first key."""
ADMIN_KEY_FILE = "admin.key"
OPERATOR = "operator"
"""The name of whoever has the operator's key."""
OPERATOR_KEY_FILE = "operator.key"

# Who made them, as events say it.
_ACTOR = "server"
_NOTE = "made at the first start"


async def make_admins_key(store: RegistryStore, directory: Path, entity: str) -> bool:
    """Make an entity with an admin and a key, if no entity has a key yet; leave the key in a file of the directory.

    The file is durable before the key counts: what a crash leaves is a file without a key, and the next start replaces
    it; never a key that nobody has. Servers that start together on one database wait for each other, and only one
    of them makes it.

    Raises:
        OSError: The file cannot be written.
    """
    async with store.database.read() as connection:
        if await store.keys.any_of_entities(connection):
            return False
    key = new_key()
    async with store.change(Caller(entity, _ACTOR)) as change:
        if await store.keys.any_of_entities(change.connection):
            return False
        change.add_event("entity.created", "", after={"name": entity})
        if await store.members.find(change.connection, change.entity_id, ADMIN) is None:
            await store.members.add(change, ADMIN, MemberKind.USER, Role.ADMIN)
        await store.keys.add(change, key, ADMIN, Role.ADMIN, note=_NOTE)
        await asyncio.to_thread(_write_secret, directory / ADMIN_KEY_FILE, key.text)
    return True


async def make_operators_key(store: RegistryStore, directory: Path) -> bool:
    """Make the operator's key, if there is none yet, as `make_admins_key` does. Raises OSError."""
    async with store.database.read() as connection:
        if await store.keys.any_of_operator(connection):
            return False
    key = new_key()
    row = KeyRow(key.key_id, OPERATOR, Role.OPERATOR, _NOTE, store.now_ms(), None, None, None)
    async with store.database.write() as connection:
        await take_turn(connection)
        if await store.keys.any_of_operator(connection):
            return False
        await store.keys.add_operators(connection, key, row)
        await asyncio.to_thread(_write_secret, directory / OPERATOR_KEY_FILE, key.text)
    return True


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
