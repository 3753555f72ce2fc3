"""What lists of projects, collections, versions, runs and events promise, on each database that they run on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidPageSize, InvalidPageToken
from lading_server.common.registry_errors import CollectionNotFound, InvalidQuery
from lading_server.registry.domain.lists import EventRequest
from lading_server.registry.domain.pages import Page, PageRequest
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.convert import collection_to_proto
from lading_server.registry.service.convert_lists import event_to_proto
from lading_server.registry.store import scan
from lading_server.registry.store.rows import EventFilter
from lading_server.registry.store.schema import VersionState
from tests.support.index import DATABASES, FakeClock
from tests.support.registry_rows import ACME, new_run, opened_registry
from tests.support.registry_rows_lists import Sample, put, tag_collection

OTHER = Caller("globex", "gus")
NOBODY = Caller("nobody", "x")
FIRST = PageRequest(0, "")
EVERYTHING = EventRequest("", "", "", 0, newest_first=False)

EVENT_FIELDS: list[dict[str, Any]] = [
    {"collection": "mnist"},
    {"version_uid": "00" * 16},
    {"after_revision": 1},
    {"newest_first": True},
]

Listing = Callable[[PageRequest], Awaitable[Page[Any]]]


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, FakeClock()) as opened:
        yield opened


async def every(listing: Listing, page_size: int, between: Callable[[], Awaitable[Any]] | None = None) -> list[Any]:
    """Return all rows of a listing, page by page; `between` is done after each."""
    rows: list[Any] = []
    page = await listing(PageRequest(page_size, ""))
    while True:
        assert len(page.rows) <= page_size
        rows += page.rows
        if not page.token:
            return rows
        if between is not None:
            await between()
        page = await listing(PageRequest(page_size, page.token))


def listings(registry: Registry, caller: Caller) -> dict[str, Listing]:
    """Return every list of a caller."""
    lists = registry.lists

    async def events(page: PageRequest) -> Page[Any]:
        found, _ = await lists.events(caller, EVERYTHING, page)
        return found

    return {
        "projects": lambda page: lists.projects(caller, page),
        "collections": lambda page: lists.collections(caller, "", "", page),
        "versions": lambda page: lists.versions(caller, "digits", "mnist", page),
        "search": lambda page: lists.search_versions(caller, "", "", page),
        "runs": lambda page: lists.runs(caller, "", page),
        "events": events,
    }


async def fill(registry: Registry, *, caller: Caller = ACME) -> None:
    """Give an entity a few of everything."""
    for at in range(3):
        await put(registry, Sample(), Sample(project=f"p{at}", collection=f"c{at}"), entity=caller.entity)
        await new_run(registry, f"run-{at}", caller=caller)


# --- what all of them have in common ---


async def test_pages_put_together_are_the_whole(registry: Registry) -> None:
    await fill(registry)
    for name, listing in listings(registry, ACME).items():
        whole = (await listing(PageRequest(100, ""))).rows
        assert len(whole) >= 3, name
        for page_size in (1, 2):
            assert await every(listing, page_size) == whole, name


async def test_a_token_of_another_list_or_of_another_entity_is_refused(registry: Registry) -> None:
    await fill(registry)
    await fill(registry, caller=OTHER)
    ours, theirs = listings(registry, ACME), listings(registry, OTHER)
    for name, listing in ours.items():
        token = (await listing(PageRequest(1, ""))).token
        assert token, name
        foreign = [theirs[name], *(other for its, other in ours.items() if its != name)]
        for other in foreign:
            with pytest.raises(InvalidPageToken):
                await other(PageRequest(1, token))


async def test_a_token_of_another_request_to_the_same_list_is_refused(registry: Registry) -> None:
    await fill(registry)
    lists = registry.lists

    def pages(project: str, collection: str, query: str, events: EventRequest) -> list[Listing]:
        async def of_events(page: PageRequest) -> Page[Any]:
            return (await lists.events(ACME, events, page))[0]

        return [
            lambda page: lists.versions(ACME, project, collection, page),
            lambda page: lists.collections(ACME, project, query, page),
            lambda page: lists.runs(ACME, project, page),
            of_events,
        ]

    await put(registry, Sample(), Sample(collection="more"), Sample(collection="more"))
    wanted = EVERYTHING._replace(project="digits")
    tokens = [(await listing(PageRequest(1, ""))).token for listing in pages("digits", "mnist", "", wanted)]
    assert all(tokens)
    others = [
        *zip(tokens, pages("p0", "c0", "", wanted._replace(project="p0")), strict=True),
        *zip(tokens[:2], pages("digits", "more", "type=dataset", wanted)[:2], strict=True),
        *((tokens[3], pages("digits", "", "", wanted._replace(**field))[3]) for field in EVENT_FIELDS),
    ]
    for token, other in others:
        with pytest.raises(InvalidPageToken):
            await other(PageRequest(1, token))


async def test_no_row_of_another_entity_appears(registry: Registry) -> None:
    await fill(registry, caller=OTHER)
    await put(registry, Sample(project="ours"))
    for name, listing in listings(registry, ACME).items():
        if name == "versions":
            with pytest.raises(CollectionNotFound):
                await listing(FIRST)
        else:
            assert len((await listing(FIRST)).rows) == int(name in ("projects", "collections", "search")), name


async def test_an_entity_that_was_never_seen_has_nothing(registry: Registry) -> None:
    for name, listing in listings(registry, NOBODY).items():
        if name == "versions":
            with pytest.raises(CollectionNotFound):
                await listing(FIRST)
        else:
            assert await listing(FIRST) == ([], ""), name


async def test_a_negative_page_size_and_a_made_up_token_are_refused(registry: Registry) -> None:
    await fill(registry)
    for listing in listings(registry, ACME).values():
        with pytest.raises(InvalidPageSize):
            await listing(PageRequest(-1, ""))
        for token in ("x", "é", "AAAAAAAAAAAAAAAA"):
            with pytest.raises(InvalidPageToken):
                await listing(PageRequest(1, token))


async def test_what_is_added_meanwhile_disturbs_no_page(registry: Registry) -> None:
    await fill(registry)
    for name, listing in listings(registry, ACME).items():
        whole = [str(row[0]) for row in (await listing(PageRequest(100, ""))).rows]
        added = iter(range(3))

        async def between(name: str = name, added: Any = added) -> None:
            for at in added:
                # Before, between and after what is there.
                for project in ("a", "p0", "z"):
                    await put(registry, Sample(project=f"{project}{name}{at}", collection=f"c{at}"), Sample())
                await new_run(registry, f"{name}-{at}")
                return

        found = [str(row[0]) for row in await every(listing, 2, between)]
        assert len(found) == len(set(found)), name
        assert [one for one in found if one in set(whole)] == whole, name


# --- projects ---


async def test_projects_are_sorted_by_code_points(registry: Registry) -> None:
    for name in ("b", "B", "a-b", "a_b", "ab", "A"):
        await put(registry, Sample(project=name))
    names = [row.name for row in await every(listings(registry, ACME)["projects"], 2)]
    assert names == sorted(names) == ["A", "B", "a-b", "a_b", "ab", "b"]


# --- collections ---


async def collection_names(registry: Registry, query: str, project: str = "") -> list[str]:
    rows = await every(lambda page: registry.lists.collections(ACME, project, query, page), 2)
    return [f"{row.project}/{row.name}" for row in rows]


@pytest.fixture(params=["sorted", "walked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are found: collected and sorted, or by a walk in tiny windows."""
    if request.param == "walked":
        for name in ("_MOST_SORTED", "_MOST_SORTED_LATE"):
            monkeypatch.setattr(scan, name, 0)
        for name in ("_MIN_WINDOW", "_MAX_WINDOW"):
            monkeypatch.setattr(scan, name, 2)
    return str(request.param)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["audio/bert", "digits/B-2", "digits/bert", "model-registry/Digit Reader"]),
        ("project=digits", ["digits/B-2", "digits/bert"]),
        ("project!=digits", ["audio/bert", "model-registry/Digit Reader"]),
        ("name=bert", ["audio/bert", "digits/bert"]),
        ("name!=bert", ["digits/B-2", "model-registry/Digit Reader"]),
        ("b", ["audio/bert", "digits/B-2", "digits/bert"]),
        ('"t r"', ["model-registry/Digit Reader"]),
        ("type=model", ["digits/B-2", "model-registry/Digit Reader"]),
        ("type!=model", ["audio/bert", "digits/bert"]),
        ("kind=portfolio", ["model-registry/Digit Reader"]),
        ("kind!=portfolio", ["audio/bert", "digits/B-2", "digits/bert"]),
        ("tag=gold", ["audio/bert", "model-registry/Digit Reader"]),
        ("tag!=gold", ["digits/B-2", "digits/bert"]),
        ("tag=gold tag=team:a", ["audio/bert"]),
        ("creator=bob", ["digits/bert"]),
        ("creator!=bob name~bert", ["audio/bert"]),
        ("created<2027-01-15T08:00:02Z", ["audio/bert", "digits/B-2"]),
        ("created>=2027-01-15T08:00:02Z", ["digits/bert", "model-registry/Digit Reader"]),
        ("tag=none", []),
        ("project=none", []),
    ],
)
async def test_a_query_finds_collections(registry: Registry, way: str, query: str, expected: list[str]) -> None:
    second = 1_800_000_000_000
    audio = Sample("audio", "bert", created_at_ms=second)
    source = Sample("digits", "B-2", "model", created_at_ms=second + 1000)
    await put(registry, audio, source)
    other = Sample("digits", "bert", creator="bob", created_at_ms=second + 2000)
    model = Sample("model-registry", "Digit Reader", "model", source=source, created_at_ms=second + 3000)
    await put(registry, other, model)
    await tag_collection(registry, audio, "gold", "team:a")
    await tag_collection(registry, model, "gold")
    await put(registry, Sample("digits", "bert"), entity=OTHER.entity)
    assert await collection_names(registry, query) == expected
    assert await collection_names(registry, query, "digits") == [
        name for name in expected if name.startswith("digits/")
    ]


async def test_a_collection_has_no_alias_number_or_metadata(registry: Registry) -> None:
    for query in ("alias=a", "number=1", "metadata.x=1", "run=r", "size>1", "files>1"):
        with pytest.raises(InvalidQuery):
            await registry.lists.collections(ACME, "", query, FIRST)
    with pytest.raises(InvalidName):
        await registry.lists.collections(ACME, "no/name", "", FIRST)


async def test_a_collection_tells_everything_and_no_more_than_a_thousand_aliases(registry: Registry) -> None:
    aliases = tuple(f"a{at:04}" for at in range(1002))
    one = Sample(aliases=aliases[::2])
    await put(registry, one, Sample(aliases=aliases[1::2]))
    await tag_collection(registry, one, "b", "a")
    (row,) = (await registry.lists.collections(ACME, "", "", FIRST)).rows
    message = collection_to_proto(row)
    assert [(target.alias, target.number) for target in message.aliases] == [
        (alias, at % 2) for at, alias in enumerate(aliases[:1000])
    ]
    assert (list(message.tags), message.version_count, message.type) == (["a", "b"], 2, "dataset")


# --- versions ---


async def test_versions_come_newest_first_and_without_the_deleted(registry: Registry) -> None:
    deleted = Sample(state=VersionState.DELETED)
    await put(registry, Sample(), Sample(), deleted, Sample(), Sample(collection="other"))
    rows = await every(listings(registry, ACME)["versions"], 2)
    assert [row.name for row in rows] == [f"digits/mnist:v{number}" for number in (3, 1, 0)]
    with pytest.raises(InvalidName):
        await registry.lists.versions(ACME, "digits", "a b", FIRST)


async def test_a_page_of_large_versions_ends_before_the_message_is_full(registry: Registry) -> None:
    large = "x" * (256 << 10)
    await put(registry, *(Sample(description=large, metadata=large) for _ in range(9)))
    page = await registry.lists.versions(ACME, "digits", "mnist", FIRST)
    assert 1 < len(page.rows) < 7
    numbers = [row.number for row in await every(listings(registry, ACME)["versions"], 100)]
    assert numbers == list(range(8, -1, -1))


# --- runs ---


async def test_runs_come_newest_first_and_those_of_a_project_alone(registry: Registry) -> None:
    for at in range(3):
        await new_run(registry, f"run-{at}", config=json.dumps({"at": at}))
    await put(registry, Sample(project="vision", run="elsewhere"))
    rows = await every(listings(registry, ACME)["runs"], 2)
    assert [row.run for row in rows] == ["elsewhere", "run-2", "run-1", "run-0"]
    in_digits = await every(lambda page: registry.lists.runs(ACME, "digits", page), 2)
    assert [json.loads(row.config)["at"] for row in in_digits] == [2, 1, 0]
    assert (await registry.lists.runs(ACME, "nowhere", FIRST)).rows == []


# --- events ---


async def events_in(registry: Registry, request: EventRequest, page_size: int = 2) -> list[int]:
    async def listing(page: PageRequest) -> Page[Any]:
        return (await registry.lists.events(ACME, request, page))[0]

    return [row.revision for row in await every(listing, page_size)]


async def test_events_are_filtered_and_come_in_both_directions(registry: Registry) -> None:
    uid = bytes(range(16))
    for project, collection, version in (("p", "", None), ("p", "c", None), ("p", "c", uid), ("q", "c", None)):
        async with registry.store.change(ACME) as change:
            change.add_event("version.updated", project, collection=collection, version_uid=version, run="r")
    async with registry.store.change(OTHER) as change:
        change.add_event("version.updated", "p", collection="c", version_uid=uid)
    for request, expected in (
        (EVERYTHING, [1, 2, 3, 4]),
        (EVERYTHING._replace(project="p"), [1, 2, 3]),
        (EVERYTHING._replace(project="p", collection="c"), [2, 3]),
        (EVERYTHING._replace(version_uid=uid.hex()), [3]),
        (EVERYTHING._replace(project="q", version_uid=uid.hex()), []),
        (EVERYTHING._replace(after_revision=2), [3, 4]),
        (EVERYTHING._replace(after_revision=(1 << 64) - 1), []),
    ):
        assert await events_in(registry, request) == expected, request
        assert await events_in(registry, request._replace(newest_first=True)) == expected[::-1], request
    page, current = await registry.lists.events(ACME, EVERYTHING, FIRST)
    assert current == 5
    message = event_to_proto(page.rows[2])
    assert (message.version_uid, message.run_id, message.actor, message.kind) == (
        uid.hex(),
        "r",
        "ann",
        "version.updated",
    )


async def test_whoever_has_seen_everything_continues_at_the_current_revision(registry: Registry) -> None:
    seen: list[int] = []
    after = 0
    for at in range(4):
        async with registry.store.change(ACME) as change:
            for _ in range(at):
                change.add_event("project.created", "p")
        page, current = await registry.lists.events(ACME, EVERYTHING._replace(after_revision=after), FIRST)
        seen += [row.revision for row in page.rows]
        after = current
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_events_after_the_revision_that_is_told_are_left_for_the_next_call(registry: Registry) -> None:
    """On PostgreSQL they may have come between the two queries."""
    async with registry.store.change(ACME) as change:
        for _ in range(3):
            change.add_event("project.created", "p")
    entity_id = await registry.store.entities.ensure(ACME.entity, 0)
    wanted = EventFilter(
        after_revision=0, up_to_revision=2, newest_first=False, project="", collection="", version_uid=None
    )
    async with registry.store.database.read() as connection:
        hits = await registry.store.lists.events(connection, entity_id, wanted, None, 10)
    assert [hit.row_id for hit in hits.hits] == [1, 2]


async def test_a_page_of_large_events_ends_before_the_message_is_full(registry: Registry) -> None:
    async with registry.store.change(ACME) as change:
        for _ in range(9):
            change.add_event(
                "version.updated", "p", before={"card": "x" * (256 << 10)}, after={"card": "y" * (256 << 10)}
            )
    page, _ = await registry.lists.events(ACME, EVERYTHING, FIRST)
    assert 1 < len(page.rows) < 7
    assert await events_in(registry, EVERYTHING, 100) == list(range(1, 10))


async def test_what_is_no_name_is_refused(registry: Registry) -> None:
    for request in (
        EVERYTHING._replace(project="no/name"),
        EVERYTHING._replace(collection="c"),
        EVERYTHING._replace(project="p", collection="no name"),
        EVERYTHING._replace(version_uid="x"),
    ):
        with pytest.raises(InvalidName):
            await registry.lists.events(ACME, request, FIRST)
    with pytest.raises(InvalidName):
        await registry.lists.runs(ACME, "no/name", FIRST)
