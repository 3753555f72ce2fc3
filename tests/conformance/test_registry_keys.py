"""What the registry remembers of keys, on each database."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest
import sqlalchemy as sa

from lading_server.common.access import KeyGrant
from lading_server.common.keys import ApiKey, new_key, parse_key
from lading_server.common.roles import Role
from lading_server.registry.domain import first_keys
from lading_server.registry.domain.first_keys import (
    ADMIN_KEY_FILE,
    OPERATOR_KEY_FILE,
    make_admins_key,
    make_operators_key,
)
from lading_server.registry.domain.keys import Keys, KeyUses
from lading_server.registry.store.schema import api_keys, entities
from lading_server.registry.store.store import RegistryStore
from tests.support.index import DATABASES, FakeClock, database_url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[RegistryStore]:
    async with database_url(request.param, tmp_path) as url:
        opened = await RegistryStore.open(url, clock=clock)
        try:
            yield opened
        finally:
            await opened.close()


def keys_of(store: RegistryStore) -> Keys:
    return Keys(store, KeyUses(store))


async def first_key(store: RegistryStore, directory: Path) -> ApiKey:
    assert await make_admins_key(store, directory, "acme")
    return parse_key((directory / ADMIN_KEY_FILE).read_text().strip())


async def change(store: RegistryStore, **values: object) -> None:
    async with store.database.write() as connection:
        await connection.execute(sa.update(api_keys).values(**values))


async def test_the_first_key_is_an_administrators_and_good(store: RegistryStore, tmp_path: Path) -> None:
    key = await first_key(store, tmp_path)
    assert await keys_of(store).check(key.key_id, key.secret_hash) == KeyGrant("admin", "acme", Role.ADMIN, None)
    async with store.database.read() as connection:
        row = (await connection.execute(sa.select(api_keys))).one()
        assert (await connection.scalars(sa.select(entities.c.name))).all() == ["acme"]
    assert row.role == "admin"
    assert row.secret_hash == key.secret_hash
    assert key.secret not in repr(row)


async def test_there_is_only_one_first_key(store: RegistryStore, tmp_path: Path) -> None:
    key = await first_key(store, tmp_path)
    assert not await make_admins_key(store, tmp_path, "other")
    assert parse_key((tmp_path / ADMIN_KEY_FILE).read_text().strip()) == key


async def test_servers_that_start_together_make_one(store: RegistryStore, tmp_path: Path) -> None:
    directories = [tmp_path / str(number) for number in range(6)]
    for directory in directories:
        directory.mkdir()
    made = await asyncio.gather(*(make_admins_key(store, directory, "acme") for directory in directories))
    assert made.count(True) == 1
    assert [(directory / ADMIN_KEY_FILE).exists() for directory in directories] == made


async def test_a_start_that_fails_after_the_file_leaves_no_key_and_the_next_makes_one(
    store: RegistryStore, tmp_path: Path
) -> None:
    write = first_keys._write_secret

    def write_and_crash(path: Path, text: str) -> None:
        write(path, text)
        raise OSError("the power is gone")

    with patch.object(first_keys, "_write_secret", write_and_crash), pytest.raises(OSError, match="power"):
        await make_admins_key(store, tmp_path, "acme")
    stale = parse_key((tmp_path / ADMIN_KEY_FILE).read_text().strip())
    assert await keys_of(store).check(stale.key_id, stale.secret_hash) is None
    key = await first_key(store, tmp_path)
    assert await keys_of(store).check(key.key_id, key.secret_hash) is not None
    assert key != stale


async def test_the_file_is_its_owners_alone_and_no_other_is_left(store: RegistryStore, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    await first_key(store, directory)
    (path,) = directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_key_that_is_unknown_revoked_or_expired_is_none(
    store: RegistryStore, tmp_path: Path, clock: FakeClock
) -> None:
    key, keys = await first_key(store, tmp_path), keys_of(store)
    assert await keys.check(new_key().key_id, key.secret_hash) is None
    assert await keys.check(key.key_id, new_key().secret_hash) is None
    now_ms = int(clock.seconds * 1000)
    await change(store, expires_at_ms=now_ms + 1)
    assert await keys.check(key.key_id, key.secret_hash) == KeyGrant("admin", "acme", Role.ADMIN, now_ms + 1)
    await change(store, expires_at_ms=now_ms)
    assert await keys.check(key.key_id, key.secret_hash) is None
    await change(store, expires_at_ms=None, revoked_at_ms=now_ms)
    assert await keys.check(key.key_id, key.secret_hash) is None


async def test_the_operator_has_a_key_of_no_entity_and_only_one(store: RegistryStore, tmp_path: Path) -> None:
    await first_key(store, tmp_path)
    assert await make_operators_key(store, tmp_path)
    key = parse_key((tmp_path / OPERATOR_KEY_FILE).read_text().strip())
    assert await keys_of(store).check(key.key_id, key.secret_hash) == KeyGrant("operator", "", Role.OPERATOR, None)
    assert not await make_operators_key(store, tmp_path)
    assert stat.S_IMODE((tmp_path / OPERATOR_KEY_FILE).stat().st_mode) == 0o600


async def test_servers_that_start_together_make_one_operators_key(store: RegistryStore, tmp_path: Path) -> None:
    directories = [tmp_path / str(number) for number in range(6)]
    for directory in directories:
        directory.mkdir()
    made = await asyncio.gather(*(make_operators_key(store, directory) for directory in directories))
    assert made.count(True) == 1
    assert [(directory / OPERATOR_KEY_FILE).exists() for directory in directories] == made
