"""The protocol keeps its promises in every state, and each weakened one is seen to break them."""

from __future__ import annotations

from functools import cache

import pytest

from tests.model.explore import ACTIONS, Walk, explore, stuck
from tests.model.promises import can_begin, has_committed, is_all_garbage, is_empty
from tests.model.state import Model, World
from tests.model.weaknesses import Weakness
from tests.model.worlds import MUTANTS, WORLDS, Mutant

# Twice what the largest world has: more is a world that does not end.
MAX_STATES = 250_000
# Fewer states than these and a rule has stopped something from happening.
MIN_STATES = {
    "core": 16_000,
    "compaction": 19_000,
    "partial trees": 13_000,
    "losses": 85_000,
    "registry restored": 68_000,
    "ingest restored": 37_000,
}
# Only weakened rules have it.
NEVER = {"lapse"}


@cache
def walked(world: World) -> Walk:
    """Walk a world once for all tests."""
    return explore(Model(world), max_states=MAX_STATES)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_every_state_of_a_world_keeps_the_promises(world: World) -> None:
    walk, model = walked(world), Model(world)
    assert walk.breach is None, " -> ".join(walk.history)
    assert len(walk.states) >= MIN_STATES[world.name]
    # From where nothing is pinned the collector alone clears everything away.
    assert any(is_all_garbage(model, state) and not is_empty(model, state) for state in walk.states)
    assert not stuck(
        walk,
        wants=lambda state: is_all_garbage(model, state),
        goal=lambda state: is_empty(model, state),
        by_collector=True,
    )
    # And wherever a version can still be meant, one can be committed.
    assert not stuck(
        walk,
        wants=lambda state: can_begin(model, state),
        goal=lambda state: has_committed(model, state),
        by_collector=False,
    )


@pytest.mark.slow
def test_every_action_happens_in_some_world() -> None:
    fired = {name for world in WORLDS for name in walked(world).fired}
    assert {action.name for action in ACTIONS} - fired == NEVER


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.weakness.name)
def test_a_weakened_rule_breaks_a_promise(mutant: Mutant) -> None:
    walk = explore(Model(mutant.world, mutant.weakness), max_states=MAX_STATES)
    print(f"{mutant.weakness.value}: {walk.breach}: {' -> '.join(walk.history)}")
    if mutant.because:
        assert walk.breach is None
    else:
        assert walk.breach is not None
        assert walk.breach.startswith(mutant.shows)


def test_every_weakness_is_in_the_table_once() -> None:
    assert sorted(mutant.weakness.name for mutant in MUTANTS) == sorted(Weakness.__members__)
    # What breaks nothing says why.
    assert all(bool(mutant.shows) is not bool(mutant.because) for mutant in MUTANTS)


def test_a_walk_gets_stuck_where_nothing_leads_out() -> None:
    """The check of what stays possible can fail: without its steps, the collector clears nothing away."""
    walk, model = walked(WORLDS[0]), Model(WORLDS[0])
    crippled = Walk(
        states=walk.states, sources=walk.sources, targets=walk.targets, collects=bytearray(len(walk.sources))
    )
    assert stuck(
        crippled,
        wants=lambda state: is_all_garbage(model, state),
        goal=lambda state: is_empty(model, state),
        by_collector=True,
    )
