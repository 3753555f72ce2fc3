"""The event log alone gives the state of the tables: whatever is done, in whatever order."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.errors import ReasonedError
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.commit_request import CommitRequest
from lading_server.registry.domain.delete_by_query import DeleteQuery
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.purging import Purging
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Link, Unlink
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.collections import collection_row, select_collections
from lading_server.registry.store.rows import RetentionRule
from lading_server.registry.store.schema import (
    CollectionState,
    ProjectState,
    VersionState,
    collections,
    events,
    has_state,
    is_there,
    projects,
    run_outputs,
    runs,
    versions,
)
from lading_server.registry.store.versions import select_any_versions, select_versions, version_row
from tests.support.event_log import State, replayed
from tests.support.index import DATABASES, FakeClock
from tests.support.registry import ANN, PinsInMemory, add_run, commit, opened_registry, rows, until

_STEPS, _MORE = 250, 4
_WANTED = {"version.deleted", "version.undeleted", "version.purged", "collection.deleted"}
_VERSION_FIELDS = (
    *("number", "tree_digest", "file_count", "reference_count", "size_bytes", "description", "metadata"),
    "expires_at_ms",
)


async def in_the_tables(registry: Registry) -> State:
    """Return what the tables hold."""
    found = [version_row(row) for row in await rows(registry, select_versions())]
    kept = {row.id: row for row in await rows(registry, sa.select(versions))}
    live_projects = sa.select(projects.c.name).where(has_state(projects, ProjectState.LIVE))
    state = State({row.name for row in await rows(registry, live_projects)}, {}, {}, {}, set(), {}, set())
    for row in map(collection_row, await rows(registry, select_collections().where(is_there(collections)))):
        state.collections[row.project, row.name] = {
            "kind": row.kind.value,
            "type": row.type,
            "description": row.description,
            "tags": list(row.tags),
        }
        assert row.version_count == sum(version.collection_id == row.id for version in found)
        newest = max((version.number for version in found if version.collection_id == row.id), default=None)
        assert dict(row.aliases).get("latest") == newest
        state.aliases.update({(row.project, row.name, alias): number for alias, number in row.aliases})
    gone = [version_row(row) for row in await rows(registry, select_any_versions())]
    state.purged.update(version.uid.hex() for version in gone if version.state is VersionState.PURGED)
    held = [version for version in gone if version.state is VersionState.DELETED]
    for version in [*found, *held]:
        told: dict[str, Any] = {"place": (version.project, version.collection), "run": version.run}
        told |= {name: getattr(version, name) for name in _VERSION_FIELDS}
        told |= {"tags": list(version.tags), "tree_digest": f"b3:{version.tree_digest.hex()}"}
        told["metadata"] = json.loads(version.metadata)
        if version.source_uid is not None:
            assert (kept[version.id].description, kept[version.id].metadata) == ("", "{}")
            del told["description"], told["metadata"]
            told |= {"source": version.source, "source_uid": version.source_uid.hex()}
        (state.versions if version.state is VersionState.LIVE else state.deleted)[version.uid.hex()] = told
    query = sa.select(runs.c.name, versions.c.uid).select_from(run_outputs)
    query = query.join(runs, runs.c.id == run_outputs.c.run_id)
    query = query.join(versions, versions.c.id == run_outputs.c.version_id)
    state.outputs.update({(row.name, row.uid.hex()) for row in await rows(registry, query)})
    return state


class Chaos:
    """Does what callers may do, at random; what is refused is fine."""

    def __init__(self, registry: Registry, pins: PinsInMemory, clock: FakeClock, seed: int) -> None:
        self._registry = registry
        self._clock = clock
        self._random = random.Random(seed)
        self._trees = [pins.new_tree() for _ in range(12)]
        self.refused = 0

    def pick(self, probability: float) -> bool:
        """Tell whether something shall happen."""
        return self._random.random() < probability

    async def step(self) -> None:
        doing = self._random.choice(
            [*[self._commit] * 4, *[self._refs] * 3, self._rest, self._rest, self._delete, self._undelete]
        )
        try:
            await doing()
        except ReasonedError:
            self.refused += 1

    async def _commit(self) -> None:
        pick = self._random
        await commit(
            self._registry,
            pick.choice(self._trees),
            pick.choice(["one", "two"]),
            description=pick.choice(["", "# Card"]),
            metadata=pick.choice(["", '{"a":{"b":1.5}}']),
            tags=tuple(pick.sample(["raw", "clean", "2026"], 2)),
            aliases=(self._alias(),),
            run=pick.choice(["", "run-1", "run-2"]),
            ttl_seconds=pick.choice([None, None, 0, 60, 7200]),
        )

    async def _refs(self) -> None:
        pick = self._random
        source = reference_of(ANN, f"vision/{pick.choice(['one', 'two'])}:{self._selector()}")
        linked = reference_of(ANN, f"model-registry/{pick.choice(['A Model', 'B'])}:{self._selector()}")
        await self._registry.refs.update(
            ANN,
            pick.sample(
                [
                    ChangeAliases(pick.choice([source, linked]), (self._alias(), self._alias())),
                    Link(pick.choice([source, linked]), pick.choice(["A Model", "B"]), (self._alias(),), "run-1"),
                    Unlink(linked, force=pick.random() < 0.5),
                ],
                pick.choice([1, 1, 2]),
            ),
        )

    async def _rest(self) -> None:
        pick = self._random
        name = pick.choice(["one", "two"])
        reference = reference_of(ANN, f"vision/{name}:{self._selector()}")
        match pick.randrange(5):
            case 0:
                await self._registry.versions.delete(ANN, reference, force=pick.random() < 0.5)
            case 1:
                await self._registry.versions.update(
                    ANN,
                    reference,
                    description="changed",
                    metadata='{"c":true}',
                    add_tags=["new"],
                    remove_tags=["raw"],
                    ttl_seconds=pick.choice([None, 60]),
                )
            case 2:
                rule = RetentionRule("vision", pick.choice(["", name]), keep_last=3, default_ttl_seconds=3600)
                await self._registry.retention.rules.set(ANN, rule)
            case 3:
                self._clock.seconds += 50
                await self._registry.retention.apply(ANN, "", "", "")
            case _:
                await self._registry.collections.update(ANN, "vision", name, description="all", add_tags=["tag"])

    async def _delete(self) -> None:
        pick = self._random
        name = pick.choice(["one", "two"])
        forced, purged = pick.random() < 0.7, pick.random() < 0.2
        match pick.randrange(4):
            case 0:
                await self._registry.deleting.delete_collection(ANN, "vision", name, force=forced, purge=purged)
            case 1:
                model = pick.choice(["A Model", "B"])
                await self._registry.deleting.delete_collection(ANN, "model-registry", model, force=forced)
            case 2:
                await self._registry.deleting.delete_project(ANN, "vision", force=pick.random() < 0.3, purge=purged)
            case _:
                wanted = DeleteQuery(f"name={name} number<3", force=forced, purge=purged)
                await self._registry.delete_by_query.page(ANN, wanted, PageRequest(0, ""))

    async def _undelete(self) -> None:
        pick = self._random
        project, name = pick.choice([("vision", "one"), ("vision", "two"), ("model-registry", "B")])
        if pick.random() < 0.5:
            await self._registry.deleting.undelete_collection(ANN, project, name)
        else:
            reference = reference_of(ANN, f"{project}/{name}:v{pick.randrange(6)}")
            await self._registry.undeleting.undelete(ANN, reference, with_links=pick.random() < 0.5)

    def _alias(self) -> AliasChange:
        pick = self._random
        return AliasChange(pick.choice(["best", "good"]), pick.random() < 0.2, must_not_exist=pick.random() < 0.2)

    def _selector(self) -> str:
        return self._random.choice(["latest", "best", "v0", "v1", "v2", "v3"])


async def _is_settled(registry: Registry) -> bool:
    """Whether nothing of a deletion is left to be done."""
    working = has_state(collections, CollectionState.DELETING, CollectionState.PURGING, CollectionState.UNDELETING)
    return not await rows(registry, sa.select(collections.c.id).where(working))


@pytest.mark.parametrize("kind", DATABASES)
async def test_the_event_log_replays_to_the_state_of_the_tables(kind: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    pins = PinsInMemory()
    clock = FakeClock()
    async with opened_registry(kind, tmp_path, pins, clock) as registry:
        for name in ("run-1", "run-2"):
            await add_run(registry, name)
        chaos = Chaos(registry, pins, clock, seed)
        # At least so many steps, and as many more as it takes until everything has come to pass.
        steps = 0
        for turn in range(_MORE * _STEPS // 5):
            if turn >= _STEPS // 5 and await _kinds(registry) >= _WANTED:
                break
            await asyncio.gather(*(chaos.step() for _ in range(5)))
            steps += 5
            if chaos.pick(0.05):
                clock.seconds += 8 * 86_400
                await Purging(registry.settings, registry.store, Closing(), lambda: None).run()
        await until(lambda: _is_settled(registry))
        # Where the last that came to pass was the project's end, there is no other version.
        last = await registry.commits.commit(ANN, CommitRequest("last", "one", "dataset", pins.new_tree()))
        log = await rows(registry, sa.select(events).order_by(events.c.revision))
        assert [event.revision for event in log] == list(range(1, len(log) + 1))
        state = await in_the_tables(registry)
        assert replayed(log) == state
        assert last.version.uid.hex() in state.versions
        assert chaos.refused < steps
        assert {event.kind for event in log} >= _WANTED


async def _kinds(registry: Registry) -> set[str]:
    return {row.kind for row in await rows(registry, sa.select(events.c.kind).distinct())}
