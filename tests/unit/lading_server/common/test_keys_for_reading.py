"""Keys that were good go on reading while the registry is away."""

from __future__ import annotations

import asyncio

import pytest

from lading_server.common.access import Access, KeyGrant, RememberedKeys
from lading_server.common.keys import new_key
from lading_server.common.keys_for_reading import KeysForReading
from lading_server.common.registry_errors import KeyInvalid, KeysUnavailable
from lading_server.common.roles import READS_OF_CONTENT, WHO_MAY_CALL, Required, Role

KEY = new_key()
READ = "/lading.ingest.v1.IngestService/ReadBlobs"
WRITE = "/lading.ingest.v1.IngestService/OpenSession"


class Registry:
    """A registry that can be away, and that forgets keys."""

    def __init__(self, expires_at_ms: int | None = None) -> None:
        self.grant: KeyGrant | None = KeyGrant("ada", "acme", Role.MEMBER, expires_at_ms)
        self.is_away = False
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        self.asked += 1
        await self.answers.wait()
        if self.is_away:
            raise KeysUnavailable("away")
        return self.grant if secret_hash == KEY.secret_hash else None


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Ingest:
    """The keys as ingest has them: believed for 60 seconds, and for 600 more to read."""

    def __init__(self, expires_at_ms: int | None = None) -> None:
        self.registry, self.clock = Registry(expires_at_ms), Clock()
        self.remembered = RememberedKeys(self.registry, 60, self.clock)
        self.reading = KeysForReading(self.remembered, 600, self.clock)
        self.access = Access(self.remembered, keys_for_reading=self.reading)

    async def call(self, method: str) -> str:
        return (await self.access.admit(method, [("authorization", f"Bearer {KEY.text}")])).name

    async def until_asked(self) -> None:
        """Return when the question in the background was answered."""
        assert self.reading._asking is not None
        await self.reading._asking


async def test_reads_go_on_and_writes_do_not() -> None:
    ingest = Ingest()
    assert await ingest.call(WRITE) == "ada"
    ingest.registry.is_away = True
    ingest.clock.seconds += 59
    assert await ingest.call(WRITE) == "ada"
    for _ in range(2):
        ingest.clock.seconds += 300
        assert await ingest.call(READ) == "ada"
        with pytest.raises(KeysUnavailable):
            await ingest.call(WRITE)
    ingest.clock.seconds += 1
    with pytest.raises(KeysUnavailable):
        await ingest.call(READ)


async def test_a_key_that_was_never_good_is_not_recalled() -> None:
    ingest = Ingest()
    ingest.registry.is_away = True
    with pytest.raises(KeysUnavailable):
        await ingest.call(READ)
    ingest.registry.is_away = False
    await ingest.call(READ)
    ingest.registry.is_away = True
    ingest.clock.seconds += 61
    other = new_key().secret_hash
    with pytest.raises(KeysUnavailable):
        await ingest.reading.check(KEY.key_id, other)
    # Nor when it is known that the registry is away.
    assert await ingest.call(READ) == "ada"
    with pytest.raises(KeysUnavailable):
        await ingest.reading.check(KEY.key_id, other)


async def test_a_key_is_not_recalled_beyond_its_own_end() -> None:
    ingest = Ingest(expires_at_ms=1_070_000)
    await ingest.call(READ)
    ingest.registry.is_away = True
    ingest.clock.seconds += 69
    assert await ingest.call(READ) == "ada"
    ingest.clock.seconds += 1
    with pytest.raises(KeysUnavailable):
        await ingest.call(READ)


async def test_a_revoked_key_ends_with_its_time_while_the_registry_answers_and_is_not_recalled_later() -> None:
    ingest = Ingest()
    await ingest.call(READ)
    ingest.registry.grant = None
    ingest.clock.seconds += 60
    assert await ingest.reading.check(KEY.key_id, KEY.secret_hash) is None
    ingest.registry.is_away = True
    with pytest.raises(KeysUnavailable):
        await ingest.call(READ)


async def test_once_it_is_away_nobody_waits_for_it_and_one_at_a_time_asks() -> None:
    ingest = Ingest()
    await ingest.call(READ)
    ingest.registry.is_away = True
    ingest.clock.seconds += 61
    await ingest.call(READ)
    ingest.registry.answers.clear()
    asked = ingest.registry.asked
    for _ in range(20):
        assert await ingest.call(READ) == "ada"
    await asyncio.sleep(0)
    assert ingest.registry.asked == asked + 1
    ingest.registry.answers.set()
    await ingest.until_asked()


async def test_when_it_is_back_it_is_believed_at_once() -> None:
    ingest = Ingest()
    await ingest.call(READ)
    ingest.registry.is_away = True
    ingest.clock.seconds += 61
    await ingest.call(READ)
    ingest.registry.is_away, ingest.registry.grant = False, None
    # The call that finds it back is still let in: it asked, and did not wait.
    assert await ingest.call(READ) == "ada"
    await ingest.until_asked()
    assert await ingest.reading.check(KEY.key_id, KEY.secret_hash) is None


async def test_a_registry_that_came_back_while_nobody_read_is_believed_before_the_next_read() -> None:
    ingest = Ingest()
    await ingest.call(READ)
    ingest.registry.is_away = True
    ingest.clock.seconds += 61
    await ingest.call(READ)
    ingest.registry.is_away, ingest.registry.grant = False, None
    ingest.clock.seconds += 300
    with pytest.raises(KeyInvalid):
        await ingest.call(READ)


async def test_while_calls_come_nobody_waits_however_long_it_is_away() -> None:
    ingest = Ingest()
    await ingest.call(READ)
    ingest.registry.is_away = True
    ingest.clock.seconds += 61
    await ingest.call(READ)
    for _ in range(10):
        ingest.clock.seconds += 4
        asked = ingest.registry.asked
        assert await ingest.call(READ) == "ada"
        # It was let in before the question was even put.
        assert ingest.registry.asked == asked
        await ingest.until_asked()
    # And a question that takes longer than it is believed to be away holds up nobody.
    ingest.registry.answers.clear()
    await ingest.call(READ)
    await asyncio.sleep(0)
    ingest.clock.seconds += 30
    asked = ingest.registry.asked
    assert await ingest.call(READ) == "ada"
    assert ingest.registry.asked == asked
    ingest.registry.answers.set()
    await ingest.until_asked()


def test_what_goes_on_is_what_a_viewer_may() -> None:
    assert {name.rpartition("/")[2] for name in READS_OF_CONTENT} == {
        *("StatBlobs", "ReadBlobs", "ReadFile", "ListTree", "GetTree", "DiffTrees", "GetCapabilities")
    }
    assert {WHO_MAY_CALL[name] for name in READS_OF_CONTENT} == {Required.VIEWER}
