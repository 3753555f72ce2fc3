"""What may be done with aliases: changes with beliefs, and `latest`, which moves by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lading_format.names import LATEST, check_settable_alias
from lading_server.common.registry_errors import AliasMoved, AliasNotFound
from lading_server.registry.domain.alias_rules import check_moves
from lading_server.registry.store.aliases import find_aliases, move_aliases, newest_version
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import AliasMove, CollectionKey, Qualities, VersionPoint

# No row has this number.
_NOT_THERE = VersionPoint(0, b"", -1)


@dataclass(frozen=True, slots=True)
class AliasChange:
    """An alias to set or remove, and what the caller believes: at most one of `expected_number`, `must_not_exist`."""

    alias: str
    remove: bool = False
    expected_number: int | None = None
    must_not_exist: bool = False

    def check(self) -> None:
        """Raise InvalidName when it is no alias that callers may change."""
        check_settable_alias(self.alias)


def plan_moves(
    changes: Sequence[AliasChange], current: Mapping[str, VersionPoint], target: VersionPoint
) -> list[AliasMove]:
    """Return the moves that changes come to, made in this order. Pure.

    Args:
        current: Where those of the aliases point that are there.
        target: What aliases are set to.

    Raises:
        AliasMoved: A belief is wrong.
        AliasNotFound: An alias that should be removed, with a belief, is not there.
    """
    now: dict[str, VersionPoint | None] = dict(current)
    moves = []
    for change in changes:
        before = now.get(change.alias)
        _check_belief(change, before)
        after = None if change.remove else target
        moves.append(AliasMove(change.alias, before, after))
        now[change.alias] = after
    return moves


async def check_changes(
    change: Change, key: CollectionKey | None, place: tuple[str, str], changes: Sequence[AliasChange], new: Qualities
) -> None:
    """Raise what `change_aliases` would for a version that is not there yet.

    Args:
        key: The collection; None where it is not there yet either.
        place: Its project and name.
        new: What the version will have.
    """
    believes = any(one.expected_number is not None or one.must_not_exist for one in changes)
    if changes and (believes or change.has_alias_rules):
        current = await find_aliases(change, key, [one.alias for one in changes]) if key is not None else {}
        moves = plan_moves(changes, current, _NOT_THERE)
        await check_moves(change, key or CollectionKey(0, *place), moves, {_NOT_THERE.id: new})


async def change_aliases(
    change: Change, key: CollectionKey, target: VersionPoint, changes: Sequence[AliasChange], *, is_newest: bool = False
) -> None:
    """Set and remove aliases of a collection.

    Args:
        is_newest: The target was just added, so `latest` moves to it.

    Raises:
        AliasMoved, AliasNotFound: See `plan_moves`.
        AliasProtected, AliasRequires: See `hold_against`.
    """
    names = [one.alias for one in changes]
    if is_newest:
        names.append(LATEST)
    if not names:
        return
    current = await find_aliases(change, key, names)
    moves = plan_moves(changes, current, target)
    await check_moves(change, key, moves)
    if is_newest:
        moves.append(AliasMove(LATEST, current.get(LATEST), target))
    await move_aliases(change, key, moves)


async def take_aliases(change: Change, key: CollectionKey, moves: Sequence[AliasMove]) -> None:
    """Remove the aliases that point at versions which are about to be hidden.

    Raises:
        AliasProtected: One of them is protected, and the caller is no admin.
    """
    await check_moves(change, key, moves)
    await move_aliases(change, key, moves)


async def settle_latest(change: Change, key: CollectionKey) -> None:
    """Have `latest` point at the newest live version, or nowhere when there is none."""
    newest = await newest_version(change, key)
    current = (await find_aliases(change, key, [LATEST])).get(LATEST)
    await move_aliases(change, key, [AliasMove(LATEST, current, newest)])


def _check_belief(change: AliasChange, current: VersionPoint | None) -> None:
    actual = "none" if current is None else f"v{current.number}"
    if change.remove and current is None and (change.must_not_exist or change.expected_number is not None):
        raise AliasNotFound(
            f"alias {change.alias!r} cannot be removed: the collection has none of this name", alias=change.alias
        )
    if change.must_not_exist and current is not None:
        raise AliasMoved(
            f"alias {change.alias!r} should not exist and points at {actual}; look again before you move it",
            alias=change.alias,
            actual=actual,
        )
    if change.expected_number is not None and (current is None or current.number != change.expected_number):
        where = "is not there" if current is None else f"points at {actual}"
        raise AliasMoved(
            f"alias {change.alias!r} should point at v{change.expected_number} and {where}; "
            "look again before you move it",
            alias=change.alias,
            actual=actual,
        )
