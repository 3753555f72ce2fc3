"""What the registry's events come to, whoever read them: the oracle of tests that compare the log with the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from lading_server.registry.store.rows import EventRow


class State(NamedTuple):
    """What can be told of the registry, in plain values."""

    projects: set[str]
    # By project and name.
    collections: dict[tuple[str, str], dict[str, Any]]
    # By id. A link has neither card nor metadata of its own.
    versions: dict[str, dict[str, Any]]
    aliases: dict[tuple[str, str, str], int]
    # A run, and a version that it logged.
    outputs: set[tuple[str, str]]
    # Versions that can be undeleted, and the ids of those that cannot.
    deleted: dict[str, dict[str, Any]]
    purged: set[str]


def replayed(log: Iterable[EventRow]) -> State:
    """Return what events come to."""
    state = State(set(), {}, {}, {}, set(), {}, set())
    for event in log:
        _replay(state, event)
    return state


def _replay(state: State, event: EventRow) -> None:
    place = (event.project, event.collection)
    uid = event.version_uid.hex() if event.version_uid is not None else ""
    before: Any = json.loads(event.before) if event.before else None
    after: Any = json.loads(event.after) if event.after else None
    match event.kind:
        case "project.created":
            state.projects.add(after["name"])
        case "project.deleted":
            state.projects.remove(before["name"])
        case "collection.created" | "collection.undeleted":
            assert place not in state.collections
            state.collections[place] = after
        case "collection.deleted":
            assert state.collections.pop(place) == before
        case "collection.purged":
            assert place not in state.collections
        case "collection.updated":
            _change(state.collections[place], before, after)
        case "version.committed" | "version.linked":
            if before is None:
                assert uid not in state.versions
                state.versions[uid] = {"place": place, "run": event.run, "expires_at_ms": None, **after}
            if event.run and event.kind == "version.committed":
                state.outputs.add((event.run, uid))
        case "version.updated":
            _change(state.versions[uid], before, after)
        case "version.deleted" | "version.unlinked":
            gone = state.versions.pop(uid)
            assert {key: gone[key] for key in before} == before
            state.deleted[uid] = gone
        case "version.undeleted":
            back = state.deleted.pop(uid)
            # A time to live that is over is forgotten.
            assert before is None or back["expires_at_ms"] == before["expires_at_ms"]
            told = {key: value for key, value in after.items() if key != "expires_at_ms"}
            assert {key: back[key] for key in told} == told
            state.versions[uid] = back | after
        case "version.purged":
            gone = state.deleted.pop(uid)
            assert {key: gone[key] for key in before} == before
            state.purged.add(uid)
        case "alias.set" | "alias.removed":
            alias = (*place, (after or before)["alias"])
            assert state.aliases.pop(alias, None) == (before and before["number"])
            if after is not None:
                state.aliases[alias] = after["number"]
        case "entity.created" | "member.added" | "key.created" | "retention_rule.set" | "retention_rule.deleted":
            # What the first start of a server makes; who may do what, and what stays, is no part of this state.
            pass
        case other:
            raise AssertionError(f"an event of kind {other}")


def _change(thing: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    assert {key: thing[key] for key in before} == before
    thing.update(after)
