"""`python -m tests.model [name …]` walks the worlds and the weakened rules, and prints what came of each.

With LADING_MODEL_LARGE=1 it walks the larger worlds too: most of a million states, and minutes.
"""

from __future__ import annotations

import os
import sys
import time

from tests.model.explore import TooManyStates, Walk, explore, stuck
from tests.model.promises import can_begin, has_committed, is_all_garbage, is_empty
from tests.model.state import Model, World
from tests.model.weaknesses import Weakness
from tests.model.worlds import LARGER_WORLDS, MUTANTS, WORLDS

# A guard: no world of the tests comes near it.
_MAX_STATES = 5_000_000


def main(names: list[str]) -> int:
    """Walk what is asked for, or everything. Returns 1 where something is not as the tables say."""
    larger = LARGER_WORLDS if os.environ.get("LADING_MODEL_LARGE") else ()
    is_right = True
    for world in (*WORLDS, *larger):
        if not names or world.name in names:
            is_right &= _print_world(world)
    for mutant in MUTANTS:
        if not names or mutant.weakness.name in names:
            is_right &= _print_mutant(mutant.weakness, mutant.world, mutant.shows, mutant.because)
    return 0 if is_right else 1


def _print_world(world: World) -> bool:
    model = Model(world)
    walk = _walk(model, world.name)
    if walk is None or walk.breach is not None:
        return False
    garbage = stuck(
        walk,
        wants=lambda state: is_all_garbage(model, state),
        goal=lambda state: is_empty(model, state),
        by_collector=True,
    )
    commits = stuck(
        walk,
        wants=lambda state: can_begin(model, state),
        goal=lambda state: has_committed(model, state),
        by_collector=False,
    )
    if garbage or commits:
        print(
            f"  STUCK: {len(garbage)} states in which garbage stays, {len(commits)} in which nothing can be committed"
        )
    return not garbage and not commits


def _print_mutant(weakness: Weakness, world: World, shows: str, because: str) -> bool:
    walk = _walk(Model(world, weakness), f"{weakness.name} ({world.name})")
    print(f"  {weakness.value}")
    if because:
        print(f"  breaks nothing: {because}")
    return walk is not None and (walk.breach or "").startswith(shows) and bool(walk.breach) is bool(shows)


def _walk(model: Model, name: str) -> Walk | None:
    began = time.monotonic()
    try:
        walk = explore(model, max_states=_MAX_STATES)
    except TooManyStates as error:
        print(error)
        return None
    seconds = time.monotonic() - began
    print(f"{name}: {len(walk.states):,} states, {seconds:.1f} s: {walk.breach or 'holds'}", flush=True)
    if walk.history:
        print(f"  {len(walk.history)} steps: {' -> '.join(walk.history)}", flush=True)
    return walk


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
