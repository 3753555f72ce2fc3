"""The walk: every state that a world can come to, breadth first, so that the first breach found is a shortest one."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.model import clients, collector, losses, registry, restores
from tests.model.promises import broken
from tests.model.state import Model, State

Step = tuple[str, State]


class Action(NamedTuple):
    """One kind of step, and whether ingest takes it by itself to clear away what nobody needs."""

    run: Callable[[Model, State], Iterator[Step]]
    collects: bool
    # Whether it can happen while a restored database of ingest has not caught up.
    without_ingest: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.run.__name__


_OF_REGISTRY = (
    registry.intend,
    registry.abort,
    registry.delete,
    registry.undelete,
    registry.purge,
    registry.next_version,
    restores.restore_registry,
)
_OF_COLLECTOR = (
    collector.read_row,
    collector.judge_row,
    collector.condemn_row,
    collector.forget_row,
    collector.read_pack,
    collector.judge_pack,
    collector.condemn_pack,
    collector.begin_delete,
    collector.send_delete,
    collector.drop_pack,
    collector.move_rows,
    collector.stop,
    losses.record_loss,
    restores.list_kept,
    restores.reconcile,
    restores.begin_run,
    restores.end_window,
)
_OF_ANYBODY = (
    clients.upload,
    clients.commit_blob,
    clients.put_tree,
    registry.acquire,
    registry.commit,
    registry.release,
    registry.acknowledge,
    registry.lapse,
    collector.revive_pack,
    collector.copy_pack,
    losses.rot,
    restores.release_unknown,
    restores.back_up,
    restores.restore_ingest,
)
ACTIONS = (
    *(Action(run, False, True) for run in _OF_REGISTRY),
    *(Action(run, True, False) for run in _OF_COLLECTOR),
    *(Action(run, False, False) for run in _OF_ANYBODY),
    # They are out of anybody's hands.
    Action(collector.lose_file, True, True),
    Action(restores.catch_up, True, True),
)


@dataclass
class Walk:
    """What was found. `breach` and `history` are of the first state that breaks a promise, where one does."""

    breach: str | None = None
    history: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    # The steps from one state to another, by the states' numbers, and which of them collect.
    sources: array[int] = field(default_factory=lambda: array("I"))
    targets: array[int] = field(default_factory=lambda: array("I"))
    collects: bytearray = field(default_factory=bytearray)


class TooManyStates(Exception):
    """The world is larger than it should be."""


def explore(model: Model, *, max_states: int) -> Walk:
    """Walk through every state, to the first breach if there is one. Raises TooManyStates."""
    walk = Walk()
    first = model.first()
    numbers = {first: 0}
    came_from: list[tuple[int, str]] = [(0, "")]
    walk.states.append(first)
    at = 0
    while at < len(walk.states):
        state = walk.states[at]
        for action in ACTIONS:
            if state.unadopted is not None and not action.without_ingest:
                continue
            for label, after in action.run(model, state):
                walk.fired[action.name] += 1
                after = model.canonical(after)
                number = numbers.get(after)
                if number is None:
                    number = numbers[after] = len(walk.states)
                    walk.states.append(after)
                    came_from.append((at, label))
                    walk.breach = broken(model, after)
                    if walk.breach is not None:
                        walk.history = _history(came_from, number)
                        return walk
                walk.sources.append(at)
                walk.targets.append(number)
                walk.collects.append(action.collects)
        if len(walk.states) > max_states:
            raise TooManyStates(f"{model.world.name} has more than {max_states:,} states")
        at += 1
    return walk


def stuck(
    walk: Walk, *, wants: Callable[[State], bool], goal: Callable[[State], bool], by_collector: bool
) -> list[int]:
    """Return the numbers of the states that want to get to a goal and cannot.

    Args:
        by_collector: Whether nothing but the collector's own steps may lead there.
    """
    reaches = bytearray(len(walk.states))
    begins, sources = _backwards(walk, by_collector)
    waiting = [number for number, state in enumerate(walk.states) if goal(state)]
    for number in waiting:
        reaches[number] = True
    while waiting:
        number = waiting.pop()
        for source in sources[begins[number] : begins[number + 1]]:
            if not reaches[source]:
                reaches[source] = True
                waiting.append(source)
    return [number for number, state in enumerate(walk.states) if not reaches[number] and wants(state)]


def _backwards(walk: Walk, by_collector: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Return, for each state, where in the second list the states that lead to it begin."""
    counts = [0] * (len(walk.states) + 1)
    for target, collects in zip(walk.targets, walk.collects, strict=True):
        if collects or not by_collector:
            counts[target + 1] += 1
    for number in range(len(walk.states)):
        counts[number + 1] += counts[number]
    begins = array("I", counts)
    sources = array("I", bytes(4 * begins[-1]))
    for source, target, collects in zip(walk.sources, walk.targets, walk.collects, strict=True):
        if collects or not by_collector:
            sources[counts[target]] = source
            counts[target] += 1
    return begins, sources


def _history(came_from: list[tuple[int, str]], number: int) -> list[str]:
    labels = []
    while number:
        number, label = came_from[number]
        labels.append(label)
    return labels[::-1]
