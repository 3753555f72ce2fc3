"""What the registry promises of lineage, on each database that it runs on."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading_format.errors import InvalidName
from lading_server.common.errors import InvalidRange
from lading_server.common.registry_errors import CollectionNotFound, VersionNotFound
from lading_server.common.settings import Settings
from lading_server.registry.domain.lineage import Direction, Lineage, LineageGraph
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.schema import run_inputs, run_outputs, runs, versions
from tests.support.index import DATABASES, FakeClock
from tests.support.registry_rows import ACME, MODELS, Made, delete, log, new_run, new_version, opened_registry, use
from tests.support.statements import noted_statements

UP, DOWN, BOTH = Direction.UPSTREAM, Direction.DOWNSTREAM, Direction.BOTH


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, FakeClock()) as opened:
        yield opened


def bounded(registry: Registry, max_nodes: int) -> Lineage:
    return Lineage(Settings(max_lineage_nodes=max_nodes), registry.store, registry.runs)


class Shown(NamedTuple):
    """A graph in words: names of versions, ids of runs, and edges as (run, version) or (link, source)."""

    versions: list[str]
    runs: list[str]
    used: set[tuple[str, str]]
    logged: set[tuple[str, str]]
    linked: set[tuple[str, str]]
    truncated: bool


def shown(graph: LineageGraph) -> Shown:
    names = {row.id: row.name for row in graph.versions}
    ids = {row.id: row.run for row in graph.runs}
    return Shown(
        versions=[row.name for row in graph.versions],
        runs=[row.run for row in graph.runs],
        used={(ids[edge.run_id], names[edge.version_id]) for edge in graph.used},
        logged={(ids[edge.run_id], names[edge.version_id]) for edge in graph.logged},
        linked={(row.name, row.source) for row in graph.versions if row.source},
        truncated=graph.truncated,
    )


async def ask(registry: Registry, version: Made, direction: Direction, depth: int = 0, *, most: int = 1000) -> Shown:
    return shown(await bounded(registry, most).graph(ACME, version.name, direction, depth))


@dataclass
class Chain:
    """raw → prepare → data → train → model ⇠ link → deploy, and test, which evaluate used with the model."""

    registry: Registry
    made: dict[str, Made] = field(default_factory=dict)

    async def build(self) -> Chain:
        for name in ("raw", "data", "test", "model"):
            self.made[name] = await new_version(self.registry, f"digits/{name}", type_name="any")
        self.made["link"] = await new_version(
            self.registry, f"{MODELS}/Digit Reader", type_name="any", source=self.made["model"]
        )
        for run, inputs, outputs in (
            ("prepare", ("raw",), ("data", "test")),
            ("train", ("data",), ("model",)),
            ("evaluate", ("model", "test"), ()),
            ("deploy", ("link",), ()),
        ):
            await new_run(self.registry, run)
            for name in inputs:
                await use(self.registry, run, self.made[name])
            for name in outputs:
                await log(self.registry, run, self.made[name])
        return self


@pytest.fixture
async def chain(registry: Registry) -> Chain:
    return await Chain(registry).build()


RAW, DATA, TEST, MODEL, LINK = (
    "digits/raw:v0",
    "digits/data:v0",
    "digits/test:v0",
    "digits/model:v0",
    "model-registry/Digit Reader:v0",
)


# --- what is in the graph ---


async def test_upstream_is_what_a_version_was_made_from_the_nearest_first(chain: Chain) -> None:
    graph = await ask(chain.registry, chain.made["model"], UP)
    assert graph.versions == [MODEL, LINK, DATA, RAW]
    assert graph.runs == ["train", "prepare"]
    assert graph.used == {("train", DATA), ("prepare", RAW)}
    assert graph.logged == {("train", MODEL), ("prepare", DATA)}
    assert graph.linked == {(LINK, MODEL)}
    assert not graph.truncated


async def test_downstream_is_what_was_made_from_a_version_through_links_too(chain: Chain) -> None:
    graph = await ask(chain.registry, chain.made["data"], DOWN)
    assert graph.versions == [DATA, MODEL, LINK]
    assert graph.runs == ["train", "evaluate", "deploy"]
    assert graph.used == {("train", DATA), ("evaluate", MODEL), ("deploy", LINK)}
    assert graph.logged == {("train", MODEL)}


async def test_both_ways_are_together_with_every_edge_between_them(chain: Chain) -> None:
    graph = await ask(chain.registry, chain.made["data"], BOTH)
    assert graph.versions == [DATA, RAW, MODEL, LINK]
    assert graph.runs == ["prepare", "train", "evaluate", "deploy"]
    # `test` is neither what data was made from nor what was made from it.
    assert TEST not in graph.versions
    graph = await ask(chain.registry, chain.made["model"], BOTH)
    assert ("prepare", DATA) in graph.logged
    assert not graph.truncated


async def test_an_edge_is_told_although_neither_way_passes_it(registry: Registry) -> None:
    """Evaluating a model with the data that it was trained with: up to the data, down to the run, across by neither."""
    data, model = [await new_version(registry, f"digits/{name}") for name in ("data", "model")]
    for run, inputs in (("train", [data]), ("evaluate", [data, model])):
        await new_run(registry, run)
        for version in inputs:
            await use(registry, run, version)
    await log(registry, "train", model)
    assert ("evaluate", DATA) in (await ask(registry, model, BOTH)).used


async def test_of_a_link_its_source_is_asked_about(chain: Chain) -> None:
    graph = await chain.registry.lineage.graph(ACME, LINK, UP, 0)
    assert graph.root_uid == chain.made["model"].uid
    assert shown(graph).versions == [MODEL, LINK, DATA, RAW]


async def test_texts_that_can_be_large_are_left_out(registry: Registry) -> None:
    version = await new_version(registry, "digits/data", description="# Card", aliased=("best",))
    await new_run(registry, "r1", config='{"lr": 1}')
    await use(registry, "r1", version)
    graph = await registry.lineage.graph(ACME, version.name, BOTH, 0)
    assert [(row.description, row.metadata, row.aliases) for row in graph.versions] == [("", "", ("best",))]
    assert [(row.config, row.summary, row.name) for row in graph.runs] == [("", "", "r1")]


async def test_what_was_deleted_is_not_in_the_graph(chain: Chain) -> None:
    await delete(chain.registry, chain.made["data"])
    graph = await ask(chain.registry, chain.made["model"], UP)
    assert (graph.versions, graph.runs, graph.truncated) == ([MODEL, LINK], ["train"], False)


async def test_a_run_that_logs_what_it_used_is_a_cycle_and_no_endless_one(registry: Registry) -> None:
    version = await new_version(registry, "digits/data")
    await new_run(registry, "r1")
    await use(registry, "r1", version)
    await log(registry, "r1", version)
    for direction in Direction:
        graph = await ask(registry, version, direction, 100)
        assert (graph.versions, graph.runs, graph.truncated) == ([DATA], ["r1"], False)
        assert graph.used == graph.logged == {("r1", DATA)}


# --- how far it goes ---


async def test_depth_counts_runs_and_more_is_told(chain: Chain) -> None:
    one = await ask(chain.registry, chain.made["model"], UP, 1)
    assert (one.versions, one.runs, one.truncated) == ([MODEL, LINK, DATA], ["train"], True)
    two = await ask(chain.registry, chain.made["model"], UP, 2)
    assert (two.versions, two.runs, two.truncated) == ([MODEL, LINK, DATA, RAW], ["train", "prepare"], False)


async def test_without_a_depth_ten_runs_are_passed(registry: Registry) -> None:
    made = [await new_version(registry, "digits/step") for _ in range(12)]
    for n, (before, after) in enumerate(pairwise(made)):
        await use(registry, await new_run(registry, f"r{n:02}"), before)
        await log(registry, f"r{n:02}", after)
    graph = await ask(registry, made[-1], UP)
    assert (len(graph.runs), graph.truncated) == (10, True)
    assert (await ask(registry, made[-1], UP, 11)).truncated is False


@pytest.mark.parametrize("most", range(1, 8))
async def test_the_nearest_nodes_are_in_a_graph_that_is_too_large(chain: Chain, most: int) -> None:
    whole = await ask(chain.registry, chain.made["model"], UP)
    graph = await ask(chain.registry, chain.made["model"], UP, most=most)
    assert len(graph.versions) + len(graph.runs) == min(most, 6)
    assert graph.versions == whole.versions[: len(graph.versions)]
    assert graph.runs == whole.runs[: len(graph.runs)]
    assert graph.truncated is (most < 6)


async def test_edges_are_bounded_too(registry: Registry) -> None:
    made = [await new_version(registry, "digits/data") for _ in range(25)]
    for n in range(25):
        await new_run(registry, f"r{n}")
    async with registry.store.database.write() as connection:
        ids = (await connection.scalars(sa.select(runs.c.id))).all()
        rows = [{"run_id": run, "version_id": version.id, "used_at_ms": 0} for run in ids for version in made]
        await connection.execute(sa.insert(run_inputs), rows)
        await connection.execute(
            sa.insert(run_outputs), [{"run_id": run, "version_id": made[0].id, "logged_at_ms": 0} for run in ids]
        )
    graph = await bounded(registry, 50).graph(ACME, made[0].name, UP, 0)
    assert (len(graph.versions) + len(graph.runs), len(graph.used), graph.truncated) == (50, 500, True)
    graph = await bounded(registry, 63).graph(ACME, made[0].name, UP, 0)
    assert (len(graph.versions) + len(graph.runs), len(graph.used), graph.truncated) == (50, 625, False)


# --- what is refused ---


@pytest.mark.parametrize("depth", [-1, 101])
async def test_a_depth_out_of_range_is_refused(chain: Chain, depth: int) -> None:
    with pytest.raises(InvalidRange):
        await ask(chain.registry, chain.made["model"], UP, depth)


async def test_a_version_that_is_not_there_is_told(chain: Chain) -> None:
    lineage = chain.registry.lineage
    with pytest.raises(VersionNotFound):
        await lineage.graph(ACME, "digits/data:v7", UP, 0)
    with pytest.raises(CollectionNotFound):
        await lineage.graph(ACME, "digits/nothing", UP, 0)
    with pytest.raises(CollectionNotFound):
        await lineage.graph(ACME._replace(entity="globex"), DATA, UP, 0)
    with pytest.raises(InvalidName):
        await lineage.graph(ACME, f"globex/{DATA}", UP, 0)


# --- any graph at all ---


class Drawn(NamedTuple):
    """Versions are 0, 1, …; `links` are further ones and say their source."""

    sources: int
    links: list[int]
    runs: int
    used: set[tuple[int, int]]
    logged: set[tuple[int, int]]
    deleted: set[int]
    root: int
    depth: int

    def place(self, version: int) -> set[int]:
        """The version with its source and every link to that, without what was deleted."""
        origin = version if version < self.sources else self.links[version - self.sources]
        links = {self.sources + n for n, source in enumerate(self.links) if source == origin}
        return ({origin} | links) - self.deleted

    def reach(self, *, up: bool) -> tuple[set[int], set[int], bool]:
        """Brute force: the versions and runs of one way, and whether it goes on."""
        first, second = (self.logged, self.used) if up else (self.used, self.logged)
        seen, seen_runs = self.place(self.root), set[int]()
        for _ in range(self.depth):
            seen_runs |= {run for run, version in first if version in seen}
            behind = {version for run, version in second if run in seen_runs} - self.deleted
            seen |= set[int]().union(*(self.place(version) for version in behind))
        return seen, seen_runs, any(version in seen and run not in seen_runs for run, version in first)


@st.composite
def _graphs(draw: st.DrawFn) -> Drawn:
    sources, run_count = draw(st.integers(1, 7)), draw(st.integers(0, 7))
    links = draw(st.lists(st.integers(0, sources - 1), max_size=4))
    anyone = st.integers(0, sources + len(links) - 1)
    run = st.integers(0, run_count - 1) if run_count else st.nothing()
    # A version that goes takes its links with it.
    gone = draw(st.sets(st.integers(0, sources + len(links) - 1), max_size=2))
    gone |= {sources + n for n, source in enumerate(links) if source in gone}
    alive = sorted(set(range(sources + len(links))) - gone)
    if not alive:
        gone, alive = set(), list(range(sources + len(links)))
    return Drawn(
        sources=sources,
        links=links,
        runs=run_count,
        used=draw(st.sets(st.tuples(run, anyone), max_size=14)) if run_count else set(),
        logged=draw(st.sets(st.tuples(run, st.integers(0, sources - 1)), max_size=14)) if run_count else set(),
        deleted=gone,
        root=draw(st.sampled_from(alive)),
        depth=draw(st.integers(1, 4)),
    )


async def _store(registry: Registry, drawn: Drawn, made: list[Made], run_rows: list[int]) -> None:
    """Put a drawn graph in the place of the one before, over rows that are there."""
    linked = {drawn.sources + n: source for n, source in enumerate(drawn.links)}
    async with registry.store.database.write() as connection:
        for table in (run_inputs, run_outputs):
            await connection.execute(sa.delete(table))
        for number, version in enumerate(made):
            await connection.execute(
                sa.update(versions)
                .where(versions.c.id == version.id)
                .values(
                    source_id=made[linked[number]].id if number in linked else None,
                    state="deleted" if number in drawn.deleted else "live",
                )
            )
        for table, edges, time in (
            (run_inputs, drawn.used, "used_at_ms"),
            (run_outputs, drawn.logged, "logged_at_ms"),
        ):
            rows = [{"run_id": run_rows[run], "version_id": made[number].id, time: 0} for run, number in edges]
            if rows:
                await connection.execute(sa.insert(table), rows)


@pytest.fixture
async def rows(registry: Registry) -> tuple[list[Made], list[int]]:
    """Versions and runs enough for any drawn graph."""
    made = [await new_version(registry, "digits/any") for _ in range(11)]
    for n in range(7):
        await new_run(registry, f"r{n}")
    async with registry.store.database.read() as connection:
        return made, list((await connection.scalars(sa.select(runs.c.id).order_by(runs.c.id))).all())


def _pairs(edges: Iterable[tuple[int, int]], run_rows: list[int], made: list[Made]) -> set[tuple[int, int]]:
    return {(run_rows[run], made[version].id) for run, version in edges}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=_graphs(), direction=st.sampled_from(Direction))
async def test_any_graph_is_what_brute_force_finds(
    registry: Registry, rows: tuple[list[Made], list[int]], drawn: Drawn, direction: Direction
) -> None:
    made, run_rows = rows
    await _store(registry, drawn, made, run_rows)
    ways = [drawn.reach(up=up) for up in (True, False) if direction is not (DOWN if up else UP)]
    seen = set[int]().union(*(way[0] for way in ways))
    seen_runs = set[int]().union(*(way[1] for way in ways))
    graph = await bounded(registry, 1000).graph(ACME, made[drawn.root].name, direction, drawn.depth)
    assert sorted(row.id for row in graph.versions) == sorted(made[version].id for version in seen)
    assert sorted(row.id for row in graph.runs) == sorted(run_rows[run] for run in seen_runs)
    within = {(run, version) for run in seen_runs for version in seen}
    assert {tuple(edge) for edge in graph.used} == _pairs(drawn.used & within, run_rows, made)
    assert {tuple(edge) for edge in graph.logged} == _pairs(drawn.logged & within, run_rows, made)
    assert graph.truncated is any(way[2] for way in ways)


# --- what it costs ---


@pytest.mark.parametrize("width", [1, 40])
async def test_a_graph_costs_as_many_queries_whatever_its_width(registry: Registry, width: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    layers = [[await new_version(registry, f"digits/l{layer}") for _ in range(width)] for layer in range(3)]
    for layer, (before, after) in enumerate(pairwise(layers)):
        for n, version in enumerate(after):
            run = await new_run(registry, f"r{layer}-{n}")
            await use(registry, run, before[0])
            await use(registry, run, chooser.choice(before))
            await log(registry, run, version)
    with noted_statements(registry.store.database) as asked:
        graph = await ask(registry, layers[0][0], DOWN)
    assert len(graph.runs) >= (2 if width == 1 else width)
    # The version, its links; two levels of runs, versions, links; the end of the second; nodes and edges.
    assert len([one for one in asked if one.text.startswith(("SELECT", "WITH"))]) == 2 + 2 * 3 + 1 + 4
