"""Who is let in: the header, the memory of good keys, and the service key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_proto.ingest.v1 import chunks_pb2
from lading_server.common.access import (
    Access,
    KeyGrant,
    RememberedKeys,
    check_entity_of,
    read_service_key,
)
from lading_server.common.callers import ANYBODY, SERVICE, Principal
from lading_server.common.keys import ApiKey, new_key, parse_key
from lading_server.common.registry_errors import EntityDenied, KeyInvalid, KeyMissing, RoleDenied
from lading_server.common.roles import Role

METHOD = "/lading.ingest.v1.IngestService/OpenSession"
PINS = "/lading.ingest.v1.PinService/AcquirePin"
KEY = new_key()
GRANT = KeyGrant("ada", "acme", Role.MEMBER, None)


class FakeKeys:
    """A registry with keys that come and go."""

    def __init__(self, *keys: ApiKey, grant: KeyGrant = GRANT) -> None:
        self.hashes = {key.key_id: key.secret_hash for key in keys}
        self.grant = grant
        self.asked = 0

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        self.asked += 1
        return self.grant if self.hashes.get(key_id) == secret_hash else None


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def bearer(text: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "test"), ("authorization", f"Bearer {text}")]


# --- keys ---


def test_a_key_is_read_as_it_was_made() -> None:
    key = new_key()
    assert re.fullmatch(r"lading_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", key.text)
    assert parse_key(key.text) == key
    assert len({new_key().text for _ in range(100)}) == 100


def test_a_keys_secret_is_not_shown() -> None:
    assert KEY.secret not in repr(KEY)
    assert KEY.secret not in f"{KEY}"
    assert KEY.key_id in repr(KEY)


@given(st.text(max_size=80) | st.from_regex(r"lading_[a-z0-9]{11,13}_[A-Za-z0-9_-]{42,44}"))
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    try:
        key = parse_key(text)
    except KeyInvalid as error:
        assert len(text) < 20 or text not in error.message
    else:
        assert key.text == text


# --- admission ---


async def test_a_good_key_gives_its_principal_and_entity() -> None:
    principal = await Access(FakeKeys(KEY)).admit(METHOD, bearer(KEY.text))
    assert principal == Principal("ada", "acme", KEY.key_id, Role.MEMBER)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    assert (await Access(FakeKeys(KEY)).admit(METHOD, [("authorization", f"{scheme} {KEY.text}")])).name == "ada"


async def test_a_call_without_a_key_is_told_so() -> None:
    with pytest.raises(KeyMissing):
        await Access(FakeKeys(KEY)).admit(METHOD, [("user-agent", "test")])


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", KEY.text)],
        [("authorization", f"Basic {KEY.text}")],
        [("authorization", f"Bearer {KEY.text}"), ("authorization", f"Bearer {KEY.text}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {new_key().text}")],
        [("authorization", f"Bearer {ApiKey(KEY.key_id, new_key().secret).text}")],
    ],
)
async def test_any_other_header_is_refused(metadata: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(KeyInvalid):
        await Access(FakeKeys(KEY)).admit(METHOD, metadata)


async def test_without_keys_everybody_is_let_in_but_not_to_what_services_ask() -> None:
    access = Access(None)
    assert await access.admit(METHOD, []) == ANYBODY
    with pytest.raises(KeyMissing):
        await access.admit(PINS, [])
    for text in ("", "None", KEY.text):
        with pytest.raises(KeyInvalid):
            await access.admit(PINS, bearer(text))


async def test_the_service_key_opens_what_services_ask_and_nothing_else() -> None:
    access = Access(FakeKeys(KEY), "s" * 64)
    assert await access.admit(PINS, bearer("s" * 64)) == SERVICE
    with pytest.raises(KeyInvalid):
        await access.admit(METHOD, bearer("s" * 64))
    for text in (KEY.text, "s" * 63, "s" * 65):
        with pytest.raises(KeyInvalid):
            await access.admit(PINS, bearer(text))


# --- roles ---


async def test_a_role_that_is_too_small_is_refused_and_told_which_one_is_needed() -> None:
    access = Access(FakeKeys(KEY, grant=KeyGrant("ada", "acme", Role.VIEWER, None)))
    with pytest.raises(RoleDenied) as denied:
        await access.admit(METHOD, bearer(KEY.text))
    assert denied.value.metadata == {"required": "member", "role": "viewer"}


async def test_an_rpc_without_an_entry_is_refused_whoever_calls() -> None:
    method = "/lading.ingest.v1.IngestService/Invented"
    for access in (Access(FakeKeys(KEY, grant=KeyGrant("ada", "acme", Role.ADMIN, None))), Access(None)):
        with pytest.raises(RoleDenied):
            await access.admit(method, bearer(KEY.text))


def test_the_operator_may_name_no_entity() -> None:
    operator = Principal("operator", "", "k", Role.OPERATOR)
    check_entity_of(chunks_pb2.OpenSessionRequest(), operator)
    with pytest.raises(EntityDenied):
        check_entity_of(chunks_pb2.OpenSessionRequest(entity="acme"), operator)


# --- entities ---


@pytest.mark.parametrize("entity", ["rival", "acme2", "ACME", " acme"])
def test_a_message_cannot_name_another_entity(entity: str) -> None:
    principal = Principal("ada", "acme", "k", Role.MEMBER)
    for message in (
        chunks_pb2.OpenSessionRequest(entity=entity),
        chunks_pb2.PutChunksRequest(start=chunks_pb2.PutChunksStart(entity=entity)),
    ):
        with pytest.raises(EntityDenied):
            check_entity_of(message, principal)
        check_entity_of(message, ANYBODY)


def test_a_message_may_name_the_keys_entity_or_none() -> None:
    principal = Principal("ada", "acme", "k", Role.MEMBER)
    check_entity_of(chunks_pb2.OpenSessionRequest(entity="acme"), principal)
    check_entity_of(chunks_pb2.OpenSessionRequest(), principal)
    check_entity_of(chunks_pb2.PutChunksRequest(batch=chunks_pb2.ChunkBatch()), principal)


# --- memory ---


async def test_a_good_key_is_asked_for_once_in_its_time() -> None:
    keys, clock = FakeKeys(KEY), Clock()
    remembered = RememberedKeys(keys, 60, clock)
    for _ in range(3):
        assert await remembered.check(KEY.key_id, KEY.secret_hash) == GRANT
    assert keys.asked == 1
    keys.hashes.clear()
    clock.seconds += 59.9
    assert await remembered.check(KEY.key_id, KEY.secret_hash) == GRANT
    clock.seconds += 0.1
    assert await remembered.check(KEY.key_id, KEY.secret_hash) is None


async def test_a_remembered_id_does_not_let_another_secret_in() -> None:
    keys = FakeKeys(KEY)
    remembered = RememberedKeys(keys, 60, Clock())
    await remembered.check(KEY.key_id, KEY.secret_hash)
    assert await remembered.check(KEY.key_id, new_key().secret_hash) is None
    # Nor does the attempt put the good one out.
    assert await remembered.check(KEY.key_id, KEY.secret_hash) == GRANT
    assert keys.asked == 2


async def test_a_bad_key_is_asked_for_again() -> None:
    keys = FakeKeys()
    remembered = RememberedKeys(keys, 60, Clock())
    assert await remembered.check(KEY.key_id, KEY.secret_hash) is None
    keys.hashes[KEY.key_id] = KEY.secret_hash
    assert await remembered.check(KEY.key_id, KEY.secret_hash) == GRANT


async def test_a_key_is_not_believed_beyond_its_own_end() -> None:
    clock = Clock()
    keys = FakeKeys(KEY, grant=KeyGrant("ada", "acme", Role.MEMBER, int((clock.seconds + 5) * 1000)))
    remembered = RememberedKeys(keys, 60, clock)
    await remembered.check(KEY.key_id, KEY.secret_hash)
    clock.seconds += 5
    await remembered.check(KEY.key_id, KEY.secret_hash)
    assert keys.asked == 2


async def test_the_memory_is_bounded() -> None:
    keys = FakeKeys(*(ApiKey(f"{number:012}", "s" * 43) for number in range(5000)))
    remembered = RememberedKeys(keys, 60, Clock())
    for key_id, secret_hash in keys.hashes.items():
        await remembered.check(key_id, secret_hash)
    assert len(remembered._remembered) == 4096


async def test_a_forgotten_key_is_asked_for_again() -> None:
    keys = FakeKeys(KEY)
    remembered = RememberedKeys(keys, 60, Clock())
    await remembered.check(KEY.key_id, KEY.secret_hash)
    keys.hashes.clear()
    remembered.forget([KEY.key_id])
    assert await remembered.check(KEY.key_id, KEY.secret_hash) is None


async def test_an_answer_from_before_a_key_was_forgotten_is_not_remembered() -> None:
    class Slow(FakeKeys):
        async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
            grant = await super().check(key_id, secret_hash)
            # Revoked after it was read, and before the answer is here.
            self.hashes.clear()
            remembered.forget([key_id])
            return grant

    remembered = RememberedKeys(Slow(KEY), 60, Clock())
    await remembered.check(KEY.key_id, KEY.secret_hash)
    assert await remembered.check(KEY.key_id, KEY.secret_hash) is None


# --- the service key's file ---


def test_a_service_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "service.key"
    path.write_text("0123456789abcdef" * 2 + "\n")
    assert read_service_key(str(path)) == "0123456789abcdef" * 2


@pytest.mark.parametrize("text", ["", "short", "two words " * 8, "é" * 40])
def test_what_is_no_service_key_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "service.key"
    path.write_text(text)
    with pytest.raises(OSError, match="no service key") as caught:
        read_service_key(str(path))
    assert not text or text not in str(caught.value)
