"""The log of changes, tampered with in the database itself: what `verify_audit` finds, on each database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import sqlalchemy as sa

import lading
from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash
from lading_proto.registry.v1 import events_pb2, refs_pb2, registry_pb2_grpc, versions_pb2
from lading_server.common.access import Access
from lading_server.common.callers import Caller
from lading_server.common.drain import Drain
from lading_server.common.metrics import Metrics
from lading_server.common.serving import running
from lading_server.common.settings import Settings
from lading_server.registry.component import RegistryComponent
from lading_server.registry.domain.access import run_access
from lading_server.registry.domain.kept import Kept
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.retention import RetentionServicer
from lading_server.registry.service.servicer import RegistryServicer
from lading_server.registry.store.schema import entities, events
from tests.support.command_line import CommandLine
from tests.support.index import DATABASES
from tests.support.registry import PinsInMemory, commit, opened_registry, rows, set_aliases
from tests.support.server import ServerProcess, running_server

HEAD = 9


class Audited(NamedTuple):
    registry: Registry
    client: lading.Client


@pytest.fixture(params=DATABASES)
async def audited(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Audited]:
    """A registry with nine events of `acme`, and others of `rival` between them, and a client of `acme`."""
    pins = PinsInMemory()
    async with opened_registry(request.param, tmp_path, pins) as registry:
        eve = Caller("rival", "eve")
        await commit(registry, pins.new_tree())
        await commit(registry, pins.new_tree(), caller=eve)
        await commit(registry, pins.new_tree(), description='Zürich "quoted"\n', metadata='{"a":[1.5,null,"\\u0000"]}')
        for number in (0, 1, 0):
            await set_aliases(registry, f"vision/digits:v{number}", "best")
            await commit(registry, pins.new_tree(), caller=eve)
        async with run_access(registry.settings, registry.store) as access:
            component = RegistryComponent(
                RegistryServicer(registry),
                RetentionServicer(registry.retention),
                access,
                Kept(registry.store),
                Path(),
                serves_peer=False,
            )
            async with (
                running(Settings(), ("127.0.0.1", 0), [component], Drain(), Metrics(), Access(None)) as server,
                lading.Client(f"127.0.0.1:{server.port}", api_key="", entity="acme") as client,
            ):
                yield Audited(registry, client)


async def write(registry: Registry, *statements: Any) -> None:
    """Do what somebody with a database shell does."""
    async with registry.store.database.write() as connection:
        for statement in statements:
            await connection.execute(statement)


def of(sequence: int) -> sa.ColumnElement[bool]:
    acme = sa.select(entities.c.id).where(entities.c.name == "acme").scalar_subquery()
    return sa.and_(events.c.entity_id == acme, events.c.sequence == sequence)


async def row(registry: Registry, sequence: int) -> dict[str, Any]:
    (found,) = await rows(registry, sa.select(events).where(of(sequence)))
    return dict(found._mapping)


async def test_a_log_that_nobody_touched_is_right(audited: Audited) -> None:
    report = await audited.client.verify_audit()
    last = await row(audited.registry, HEAD)
    assert report == lading.AuditReport(True, HEAD, None, "", HEAD, last["chain_hash"].hex())
    told = [event async for event in audited.client.events()]
    assert [event.sequence for event in told] == list(range(1, HEAD + 1))
    assert told[-1].chain_hash == report.head_hash
    async with lading.Client((await audited.client.connection.settings()).address.url, entity="rival") as rival:
        theirs = await rival.verify_audit()
    assert (theirs.ok, theirs.events > 3, theirs.head_hash != report.head_hash) == (True, True, True)
    assert (await audited.client.verify_audit(report.head_sequence, report.head_hash)).ok
    await set_aliases(audited.registry, "vision/digits:v1", "best")
    later = await audited.client.verify_audit(report.head_sequence, report.head_hash)
    assert (later.ok, later.head_sequence) == (True, HEAD + 1)


async def test_a_log_of_several_pages_is_read_to_its_end(audited: Audited) -> None:
    for number in range(110):
        await set_aliases(audited.registry, f"vision/digits:v{number % 2}", "other")
    report = await audited.client.verify_audit()
    assert (report.ok, report.head_sequence) == (True, HEAD + 110)


ALTERED: dict[str, Any] = {
    "actor": "somebody-else",
    "time_ms": 1_700_000_000_000,
    "kind": "alias.removed",
    "project": "other",
    "collection": "other",
    "version_uid": b"\x01" * 16,
    "run": "run-7",
    "before": "{}",
    "after": '{"alias": "best", "number": 1}',
    "origin": "10.9.9.9",
    "chain_hash": b"\x01" * 32,
    "revision": 1_000,
}


@pytest.mark.parametrize("column", ALTERED)
async def test_an_altered_event_is_found(audited: Audited, column: str) -> None:
    at = HEAD if column == "revision" else 5
    await write(audited.registry, sa.update(events).where(of(at)).values({column: ALTERED[column]}))
    if column == "revision":
        await write(audited.registry, sa.text("UPDATE revisions SET revision = 1001"))
    report = await audited.client.verify_audit()
    assert (report.ok, report.first_bad_sequence, report.events, report.head_sequence) == (False, at, at - 1, at - 1)
    assert f"event {at} " in report.reason


async def take_out(registry: Registry) -> None:
    await write(registry, sa.delete(events).where(of(5)))


async def take_out_and_close_the_gap(registry: Registry) -> None:
    await write(registry, sa.delete(events).where(of(5)))
    for number in range(6, HEAD + 1):
        await write(registry, sa.update(events).where(of(number)).values(sequence=number - 1))


async def take_out_the_first(registry: Registry) -> None:
    await write(registry, sa.delete(events).where(of(1)))


async def put_one_in(registry: Registry) -> None:
    """Between others, where another entity's event was, with all that follow numbered anew and a hash that fits."""
    later = await row(registry, 5)
    before = await row(registry, 4)
    for number in range(HEAD, 4, -1):
        await write(registry, sa.update(events).where(of(number)).values(sequence=number + 1))
    forged = {**before, "revision": before["revision"] + 1, "sequence": 5, "actor": "somebody-else"}
    await write(registry, sa.delete(events).where(events.c.revision == forged["revision"]))
    assert forged["revision"] != later["revision"]
    told = {**forged, "version_uid": forged["version_uid"].hex()}
    event = ChainedEvent(**{name: told[name] for name in ChainedEvent._fields})
    forged["chain_hash"] = chain_hash(before["chain_hash"], event)
    await write(registry, sa.insert(events).values(forged))


async def change_places(registry: Registry) -> None:
    """What two events say, each at the number of the other."""
    one, other = await row(registry, 5), await row(registry, 7)
    kept = ("revision", "sequence", "chain_hash")
    for at, content in ((5, other), (7, one)):
        await write(
            registry,
            sa.update(events).where(of(at)).values({key: content[key] for key in content if key not in kept}),
        )


async def change_numbers(registry: Registry) -> None:
    for was, now in ((5, 1000), (6, 5), (1000, 6)):
        await write(registry, sa.update(events).where(of(was)).values(sequence=now))


@pytest.mark.parametrize(
    ("tamper", "first_bad", "told"),
    [
        (take_out, 5, "event 5 is missing"),
        (take_out_and_close_the_gap, 5, "event 5 is not the one"),
        (take_out_the_first, 1, "event 1 is missing"),
        (put_one_in, 6, "event 6 is not the one"),
        (change_places, 5, "event 5 is not the one"),
        (change_numbers, 5, "event 5 is missing"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_missing_an_inserted_and_a_moved_event_are_found(
    audited: Audited, tamper: Callable[[Registry], Awaitable[None]], first_bad: int, told: str
) -> None:
    assert (await audited.client.verify_audit()).ok
    await tamper(audited.registry)
    report = await audited.client.verify_audit()
    assert (report.ok, report.first_bad_sequence, report.events) == (False, first_bad, first_bad - 1)
    assert told in report.reason


async def test_an_end_that_was_cut_off_is_found_by_who_kept_the_head(audited: Audited) -> None:
    head = await audited.client.verify_audit()
    await write(audited.registry, sa.delete(events).where(sa.or_(of(HEAD), of(HEAD - 1))))
    assert (await audited.client.verify_audit()).ok
    report = await audited.client.verify_audit(head.head_sequence, head.head_hash)
    assert (report.ok, report.first_bad_sequence) == (False, HEAD - 1)
    assert f"ends with event {HEAD - 2}, and event {HEAD} was seen before" in report.reason


async def test_what_is_written_after_a_cut_does_not_hide_it(audited: Audited) -> None:
    head = await audited.client.verify_audit()
    cut = await row(audited.registry, HEAD - 1)
    await write(
        audited.registry,
        sa.delete(events).where(of(HEAD)),
        sa.update(entities).where(entities.c.name == "acme").values(event_count=HEAD - 1, chain_hash=cut["chain_hash"]),
    )
    await set_aliases(audited.registry, "vision/digits:v1", "forged")
    assert (await audited.client.verify_audit()).ok
    report = await audited.client.verify_audit(head.head_sequence, head.head_hash)
    assert (report.ok, report.first_bad_sequence) == (False, HEAD)
    assert "anew" in report.reason


async def test_a_log_that_was_written_anew_with_right_hashes_is_found_by_who_kept_the_head(audited: Audited) -> None:
    head = await audited.client.verify_audit()
    previous = CHAIN_START
    for number in range(1, HEAD + 1):
        told = await row(audited.registry, number)
        told["actor"] = "somebody-else" if number == 4 else told["actor"]
        fields = {**told, "version_uid": told["version_uid"].hex() if told["version_uid"] else ""}
        previous = chain_hash(previous, ChainedEvent(**{name: fields[name] for name in ChainedEvent._fields}))
        anew = {"actor": told["actor"], "chain_hash": previous}
        await write(audited.registry, sa.update(events).where(of(number)).values(anew))
    assert (await audited.client.verify_audit()).ok
    report = await audited.client.verify_audit(head.head_sequence, head.head_hash)
    assert (report.ok, report.first_bad_sequence) == (False, HEAD)


async def test_the_facade_without_an_event_loop_does_the_same(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server, lading.sync.Client(server.target, entity="acme") as client:
        client.create_collection("vision/digits", type="dataset")
        report = client.verify_audit()
        assert (report.ok, report.head_sequence) == (True, 2)
        with pytest.raises(lading.InvalidArgument):
            client.verify_audit(2)


# --- origin, and the command line ---


async def test_an_event_says_where_its_call_came_from_and_no_header_changes_that(server: ServerProcess) -> None:
    lies = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4"), ("x-real-ip", "1.2.3.4")]
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        client = lading.Client(server.target, entity="acme")
        await client.create_collection("vision/digits", type="dataset")
        request = refs_pb2.UpdateRefsRequest(entity="acme")
        change = versions_pb2.AliasChange(alias="best")
        request.changes.add().aliases.CopyFrom(refs_pb2.ChangeAliases(reference="vision/digits:v0", aliases=[change]))
        committed = await client.put({"a.txt": Path(__file__)}, "vision/digits", type="dataset")
        await stub.UpdateRefs(request, metadata=lies)
        told = await stub.ListEvents(events_pb2.ListEventsRequest(entity="acme", version_uid=committed.version.uid))
        await client.close()
    assert [event.kind for event in told.events][-1] == "alias.set"
    assert {event.origin for event in told.events} == {"127.0.0.1"}


def test_the_commands_tell_who_did_what_from_where_and_find_what_was_altered(
    server: ServerProcess, tmp_path: Path
) -> None:
    with lading.sync.Client(server.target, entity="acme") as client:
        client.put({"a.txt": Path(__file__)}, "vision/digits", type="dataset", aliases=["best"])
    command = CommandLine(tmp_path, LADING_URL=server.target, LADING_ENTITY="acme")
    heading, *lines = command("history", "vision/digits:best").splitlines()
    assert heading.split() == ["TIME", "BY", "FROM", "WHAT", "CHANGE"]
    assert any(" anonymous  127.0.0.1  alias.set " in line and "best: none -> v0" in line for line in lines)

    verified, head = command("audit", "verify").splitlines()
    assert verified.split()[-1] == "events"
    assert command.json("audit", "verify", *head.split()[1:], "--json")["ok"] is True

    with sqlite3.connect(server.data / "registry.db") as database:
        database.execute("UPDATE events SET actor = 'eve' WHERE sequence = 3")
    database.close()
    wrong = command.run("audit", "verify")
    assert wrong.returncode == 4
    assert wrong.stdout.splitlines()[0].split() == ["verified", "2", "events"]
    assert wrong.stderr.startswith("lading: event 3 is not the one")
    assert command.refused("audit", "verify", "--from-sequence", "3")[0] == 2
