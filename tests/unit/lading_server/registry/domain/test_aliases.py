"""What a list of changes of aliases comes to."""

from __future__ import annotations

import pytest

from lading_server.common.registry_errors import AliasMoved, AliasNotFound
from lading_server.registry.domain.aliases import AliasChange, plan_moves
from lading_server.registry.store.rows import AliasMove, VersionPoint

OLD, NEW = VersionPoint(1, b"o" * 16, 0), VersionPoint(2, b"n" * 16, 5)


def test_an_alias_is_set_moved_and_removed() -> None:
    changes = [AliasChange("new"), AliasChange("old"), AliasChange("gone", remove=True), AliasChange("no", remove=True)]
    assert plan_moves(changes, {"old": OLD, "gone": OLD}, NEW) == [
        AliasMove("new", None, NEW),
        AliasMove("old", OLD, NEW),
        AliasMove("gone", OLD, None),
        AliasMove("no", None, None),
    ]


def test_each_change_sees_those_before_it() -> None:
    changes = [
        AliasChange("a", must_not_exist=True),
        AliasChange("a", remove=True, expected_number=5),
        AliasChange("a", must_not_exist=True),
    ]
    assert [move.after for move in plan_moves(changes, {}, NEW)] == [NEW, None, NEW]
    with pytest.raises(AliasMoved):
        plan_moves(changes[:1] * 2, {}, NEW)


@pytest.mark.parametrize(
    ("change", "current", "kind"),
    [
        (AliasChange("a", expected_number=5), OLD, AliasMoved),
        (AliasChange("a", expected_number=0), None, AliasMoved),
        (AliasChange("a", must_not_exist=True), OLD, AliasMoved),
        (AliasChange("a", remove=True, expected_number=5), OLD, AliasMoved),
        (AliasChange("a", remove=True, must_not_exist=True), OLD, AliasMoved),
        (AliasChange("a", remove=True, expected_number=0), None, AliasNotFound),
        (AliasChange("a", remove=True, must_not_exist=True), None, AliasNotFound),
    ],
)
def test_a_wrong_belief_is_told(change: AliasChange, current: VersionPoint | None, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        plan_moves([change], {} if current is None else {"a": current}, NEW)
