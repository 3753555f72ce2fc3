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
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Link, Unlink
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.collections import collection_row, select_collections
from lading_server.registry.store.schema import events, projects, run_outputs, runs, versions
from lading_server.registry.store.versions import select_versions, version_row
from tests.support.event_log import State, replayed
from tests.support.index import DATABASES
from tests.support.registry import ANN, PinsInMemory, add_run, commit, opened_registry, rows

_STEPS = 150
_VERSION_FIELDS = ("number", "tree_digest", "file_count", "reference_count", "size_bytes", "description", "metadata")


async def in_the_tables(registry: Registry) -> State:
    """Return what the tables hold."""
    found = [version_row(row) for row in await rows(registry, select_versions())]
    kept = {row.id: row for row in await rows(registry, sa.select(versions))}
    state = State({row.name for row in await rows(registry, sa.select(projects.c.name))}, {}, {}, {}, set())
    for row in map(collection_row, await rows(registry, select_collections())):
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
    for version in found:
        told: dict[str, Any] = {"place": (version.project, version.collection), "run": version.run}
        told |= {name: getattr(version, name) for name in _VERSION_FIELDS}
        told |= {"tags": list(version.tags), "tree_digest": f"b3:{version.tree_digest.hex()}"}
        told["metadata"] = json.loads(version.metadata)
        if version.source_uid is not None:
            assert (kept[version.id].description, kept[version.id].metadata) == ("", "{}")
            del told["description"], told["metadata"]
            told |= {"source": version.source, "source_uid": version.source_uid.hex()}
        state.versions[version.uid.hex()] = told
    query = sa.select(runs.c.name, versions.c.uid).select_from(run_outputs)
    query = query.join(runs, runs.c.id == run_outputs.c.run_id)
    query = query.join(versions, versions.c.id == run_outputs.c.version_id)
    state.outputs.update({(row.name, row.uid.hex()) for row in await rows(registry, query)})
    return state


class Chaos:
    """Does what callers may do, at random; what is refused is fine."""

    def __init__(self, registry: Registry, pins: PinsInMemory, seed: int) -> None:
        self._registry = registry
        self._random = random.Random(seed)
        self._trees = [pins.new_tree() for _ in range(12)]
        self.refused = 0

    async def step(self) -> None:
        doing = self._random.choice([self._commit, self._commit, self._commit, self._refs, self._refs, self._rest])
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
        match pick.randrange(3):
            case 0:
                await self._registry.versions.delete(ANN, reference, force=pick.random() < 0.5)
            case 1:
                await self._registry.versions.update(
                    ANN, reference, description="changed", metadata='{"c":true}', add_tags=["new"], remove_tags=["raw"]
                )
            case _:
                await self._registry.collections.update(ANN, "vision", name, description="all", add_tags=["tag"])

    def _alias(self) -> AliasChange:
        pick = self._random
        return AliasChange(pick.choice(["best", "good"]), pick.random() < 0.2, must_not_exist=pick.random() < 0.2)

    def _selector(self) -> str:
        return self._random.choice(["latest", "best", "v0", "v1", "v2", "v3"])


@pytest.mark.parametrize("kind", DATABASES)
async def test_the_event_log_replays_to_the_state_of_the_tables(kind: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    pins = PinsInMemory()
    async with opened_registry(kind, tmp_path, pins) as registry:
        for name in ("run-1", "run-2"):
            await add_run(registry, name)
        chaos = Chaos(registry, pins, seed)
        for _ in range(_STEPS // 5):
            await asyncio.gather(*(chaos.step() for _ in range(5)))
        log = await rows(registry, sa.select(events).order_by(events.c.revision))
        assert [event.revision for event in log] == list(range(1, len(log) + 1))
        state = await in_the_tables(registry)
        assert replayed(log) == state
        assert state.versions
        assert chaos.refused < _STEPS
