"""What searching for versions promises, on each database that it runs on, and whichever way it looks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidPageSize, InvalidPageToken
from lading_server.common.page_tokens import make_token
from lading_server.common.registry_errors import InvalidQuery
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.queries import parse_query
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store import scan
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import VersionState, versions
from tests.support.index import DATABASES, FakeClock
from tests.support.registry_rows import ACME, opened_registry
from tests.support.registry_rows_lists import Sample, matches, put, random_samples

OTHER = Caller("globex", "gus")
ALL = PageRequest(10_000, "")


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, FakeClock()) as opened:
        yield opened


@pytest.fixture(params=["sorted", "walked", "impatient"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are found: collected and sorted; by a walk in tiny windows; or by a walk that gives up and sorts."""
    if request.param != "sorted":
        monkeypatch.setattr(scan, "_MOST_SORTED", 0)
        monkeypatch.setattr(scan, "_MOST_SORTED_APART", 0)
        monkeypatch.setattr(scan, "_MIN_WINDOW", 3)
        monkeypatch.setattr(scan, "_MAX_WINDOW", 7)
        monkeypatch.setattr(scan, "_WINDOW_FACTOR", 1)
        monkeypatch.setattr(scan, "_MOST_SORTED_LATE", 10_000 if request.param == "impatient" else 0)
        monkeypatch.setattr(scan, "_PATIENCE", 5)
        monkeypatch.setattr(scan, "_MOST_WALKED", 10_000)
    return str(request.param)


async def search(registry: Registry, query: str, order_by: str = "", page_size: int = 10_000) -> list[VersionRow]:
    """Return everything that is found, page by page."""
    rows: list[VersionRow] = []
    token = ""
    while True:
        page = await registry.lists.search_versions(ACME, query, order_by, PageRequest(page_size, token))
        assert len(page.rows) <= page_size
        rows += page.rows
        token = page.token
        if not token:
            return rows


async def _delete(connection: AsyncConnection, one: Sample) -> None:
    mine = sa.update(versions).where(versions.c.id == one.row_id)
    await connection.execute(mine.values(state=VersionState.DELETED.value))


def names(rows: list[VersionRow]) -> list[str]:
    return [row.name for row in rows]


QUERIES = [
    "",
    "project=digits",
    "project!=digits",
    "project=nowhere",
    "project!=nowhere",
    "name=bert",
    "name!=bert",
    "name~ERT",
    "name~_",
    "name~%",
    'name~"t r"',
    "dig",
    "type=model",
    "type!=model",
    "kind=portfolio",
    "kind!=portfolio",
    "tag=approved",
    "tag!=approved",
    "tag=team:a tag=approved",
    "alias!=a3",
    "creator=ann",
    "creator!=ann",
    "run=run-1",
    "run!=run-1",
    "run!=nothing",
    "created>2027-01-20",
    "created>=2027-01-20 created<2027-01-25",
    "created<=2027-01-19T08:00:00Z",
    "number=2",
    "number!=2",
    "number<2",
    "number>=4",
    "size=3",
    "size!=3 size>1 size<=6",
    "files<2",
    "files>=3",
    "metadata.accuracy>0.5",
    "metadata.accuracy<=1",
    "metadata.accuracy=1",
    "metadata.accuracy!=1",
    "metadata.accuracy=true",
    "metadata.accuracy!=true",
    "metadata.accuracy<a",
    "metadata.accuracy>=torch",
    "metadata.accuracy>z",
    'metadata.accuracy="1"',
    "metadata.a.b=torch metadata.accuracy>0",
    "metadata.none=1",
    "type=dataset tag=approved metadata.accuracy>0 creator=ann",
]


async def test_a_query_finds_exactly_what_the_protocol_says(registry: Registry, way: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    samples = random_samples(random.Random(seed), 120)
    await put(registry, *samples)
    await put(registry, *random_samples(random.Random(seed + 1), 20), entity=OTHER.entity)
    some_alias = next(alias for one in samples for alias in one.aliases)
    for query in [*QUERIES, f"alias={some_alias}"]:
        expected = [one.name for one in samples if matches(one, parse_query(query))]
        found = await search(registry, query)
        assert sorted(names(found)) == sorted(expected), (query, seed)
        assert found == sorted(found, key=lambda row: (row.created_at_ms, row.id), reverse=True), (query, seed)


ORDERS = [f"{field}{way}" for field in ("created", "name", "size", "metadata.accuracy") for way in ("", " desc")]


async def test_pages_put_together_are_the_whole_in_order(registry: Registry, way: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    samples = random_samples(random.Random(seed), 40)
    await put(registry, *samples)
    await put(registry, *random_samples(random.Random(seed + 1), 10), entity=OTHER.entity)
    for order_by in ORDERS:
        for query in ("", "tag=approved", "metadata.accuracy>0.5", "metadata.accuracy>=torch", "size>2 size<6"):
            wanted = [one for one in samples if matches(one, parse_query(query))]
            expected = [one.name for one in in_order(wanted, order_by)]
            for page_size in (3, 10_000):
                found = names(await search(registry, query, order_by, page_size))
                assert found == expected, (query, order_by, page_size, seed)


def in_order(samples: list[Sample], order_by: str) -> list[Sample]:
    """Sort as the protocol says, without SQL."""
    column, _, direction = order_by.partition(" ")
    down = direction == "desc"
    match column:
        case "created":
            return sorted(samples, key=lambda one: (one.created_at_ms, one.row_id), reverse=down)
        case "size":
            return sorted(samples, key=lambda one: (one.size_bytes, one.row_id), reverse=down)
        case "name":
            return sorted(samples, key=lambda one: (one.collection, one.collection_id, one.number), reverse=down)
    kinds: dict[type | None, list[Sample]] = {float: [], str: [], None: []}
    for one in samples:
        value = one.borne.get("accuracy")
        kinds[None if value is None else type(value)].append(one)
    for kind in (float, str):
        kinds[kind].sort(key=lambda one: (one.borne["accuracy"], bearer(one), one.row_id), reverse=down)
    kinds[None].sort(key=lambda one: (one.created_at_ms, one.row_id), reverse=down)
    return [*kinds[float], *kinds[str], *kinds[None]]


def bearer(one: Sample) -> int:
    return one.row_id if one.source is None else one.source.row_id


async def test_what_is_added_meanwhile_disturbs_no_page(registry: Registry, way: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    samples = random_samples(source, 30)
    await put(registry, *samples)
    for order_by in ORDERS:
        expected = [one.name for one in in_order([one for one in samples if matches(one, ())], order_by)]
        found: list[str] = []
        token = ""
        while True:
            page = await registry.lists.search_versions(ACME, "", order_by, PageRequest(8, token))
            found += names(page.rows)
            token = page.token
            if not token:
                break
            # Without links: theirs would be to samples that are not in the tables.
            added = [one for one in random_samples(source, 3) if one.source is None]
            await put(registry, *added)
            samples += added
        assert len(found) == len(set(found)), (order_by, seed)
        assert [name for name in found if name in set(expected)] == expected, (order_by, seed)


async def test_a_walk_that_finds_little_gives_a_short_page_and_goes_on_from_there(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_MIN_WINDOW", 4)
    monkeypatch.setattr(scan, "_MAX_WINDOW", 4)
    monkeypatch.setattr(scan, "_MOST_WALKED", 8)
    samples = [Sample(file_count=int(at == 0), created_at_ms=at) for at in range(30)]
    await put(registry, *samples)
    # A condition that no index has, so that there is nothing to sort; and it holds for the last that is looked at.
    page = await registry.lists.search_versions(ACME, "files=1", "", PageRequest(2, ""))
    pages = [page]
    while page.token:
        page = await registry.lists.search_versions(ACME, "files=1", "", PageRequest(2, page.token))
        pages.append(page)
    assert [len(page.rows) for page in pages] == [0, 0, 0, 1]
    assert names(pages[-1].rows) == [samples[0].name]


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "committed"])
async def test_what_happens_while_a_walk_looks_for_the_end_of_its_window_hides_and_repeats_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    monkeypatch.setattr(scan, "_MIN_WINDOW", 4)
    monkeypatch.setattr(scan, "_MAX_WINDOW", 4)
    window_end = scan.Scan._window_end
    samples = [Sample(file_count=int(at in (3, 4)), created_at_ms=at + 1) for at in range(8)]
    await put(registry, *samples)
    is_first = True

    async def another_writes(*args: Any) -> Any:
        nonlocal is_first
        if is_first and is_deleted:
            async with registry.store.database.write() as connection:
                await _delete(connection, samples[1])
        elif is_first:
            await put(registry, Sample(created_at_ms=0))
        is_first = False
        return await window_end(*args)

    monkeypatch.setattr(scan.Scan, "_window_end", another_writes)
    found = names(await search(registry, "files=1", "created"))
    assert not is_first
    assert found == [samples[3].name, samples[4].name]


async def test_a_page_of_large_versions_ends_before_the_message_is_full(registry: Registry) -> None:
    large = "é" * (128 << 10)
    samples = [Sample(description=large, metadata=f'{{"card":"{large}"}}', created_at_ms=at) for at in range(9)]
    await put(registry, *samples)
    first = await registry.lists.search_versions(ACME, "", "created", ALL)
    assert 1 < len(first.rows) < 7
    assert first.token
    assert names(await search(registry, "", "created")) == [one.name for one in samples]


async def test_a_version_that_alone_is_too_large_for_a_page_is_a_page(registry: Registry) -> None:
    samples = [Sample(metadata="x" * (4 << 20), created_at_ms=at) for at in range(2)]
    await put(registry, *samples)
    first = await registry.lists.search_versions(ACME, "", "", ALL)
    assert (len(first.rows), bool(first.token)) == (1, True)
    assert len(await search(registry, "")) == 2


async def test_a_link_is_found_by_the_metadata_of_its_source_and_by_its_own_tags(registry: Registry) -> None:
    source = Sample(fields={"accuracy": 0.9}, tags=("raw",))
    await put(registry, source)
    link = Sample("model-registry", "Digit Reader", "dataset", tags=("approved",), source=source)
    await put(registry, link)
    both = {source.name, link.name}
    assert set(names(await search(registry, "metadata.accuracy=0.9"))) == both
    assert set(names(await search(registry, "", "metadata.accuracy"))) == both
    assert names(await search(registry, "metadata.accuracy>0.5 tag=approved")) == [link.name]
    assert names(await search(registry, "tag=raw")) == [source.name]


async def test_letters_are_folded_in_the_same_way_on_every_database(registry: Registry) -> None:
    one = Sample(collection="Kiln")
    await put(registry, one)
    assert names(await search(registry, "name~KILN")) == [one.name]
    # The Kelvin sign is a k in lower case, where somebody knows it.
    assert await search(registry, "name~\u212ailn") == []


async def test_a_deleted_version_is_not_found_though_its_tags_are_there(registry: Registry, way: str) -> None:
    await put(registry, Sample(tags=("approved",), state=VersionState.DELETED, fields={"x": 1.0}))
    for query in ("", "tag=approved", "metadata.x=1"):
        assert await search(registry, query) == []


async def test_an_entity_that_was_never_seen_has_nothing_and_is_told_of_mistakes(registry: Registry) -> None:
    nobody = Caller("nobody", "x")
    assert await registry.lists.search_versions(nobody, "tag=a", "", ALL) == ([], "")
    with pytest.raises(InvalidQuery):
        await registry.lists.search_versions(nobody, "tag~a", "", ALL)
    with pytest.raises(InvalidQuery):
        await registry.lists.search_versions(nobody, "", "tag", ALL)
    with pytest.raises(InvalidPageToken):
        await registry.lists.search_versions(nobody, "", "", PageRequest(1, "x"))
    with pytest.raises(InvalidPageSize):
        await registry.lists.search_versions(nobody, "", "", PageRequest(-1, ""))


async def test_a_token_is_good_for_its_own_search_only(registry: Registry) -> None:
    samples = [Sample(created_at_ms=at, tags=("a",)) for at in range(3)]
    await put(registry, *samples)
    await put(registry, Sample(tags=("a",)), entity=OTHER.entity)
    page = await registry.lists.search_versions(ACME, "tag=a", "created", PageRequest(1, ""))
    again = PageRequest(2, page.token)
    rest = await registry.lists.search_versions(ACME, "tag=a", "created", again)
    assert names(rest.rows) == [one.name for one in samples[1:]]
    for caller, query, order_by in (
        (OTHER, "tag=a", "created"),
        (ACME, "tag=b", "created"),
        (ACME, "tag=a", "created desc"),
        (ACME, "", "created"),
    ):
        with pytest.raises(InvalidPageToken):
            await registry.lists.search_versions(caller, query, order_by, again)
    with pytest.raises(InvalidPageToken):
        await registry.lists.versions(ACME, "digits", "mnist", again)
    with pytest.raises(InvalidPageToken):
        await registry.lists.collections(ACME, "", "tag=a", again)


@pytest.mark.parametrize(
    "position",
    [
        [],
        [0],
        [7, 1, 1],
        [-1, 1, 1],
        ["0", 1, 1],
        [0, "1", 1],
        [0, 1],
        [0, 1, 1, 1],
        [0, 1 << 64, 1],
        [0, None, 1],
        [[]],
    ],
)
async def test_a_position_that_somebody_made_up_is_refused(registry: Registry, position: list[object]) -> None:
    await put(registry, Sample())
    token = make_token((ACME.entity, "SearchVersions", "", ""), position)
    with pytest.raises(InvalidPageToken):
        await registry.lists.search_versions(ACME, "", "", PageRequest(1, token))
