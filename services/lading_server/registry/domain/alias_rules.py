"""Rules of aliases: who may move one, and what a version has to have while the alias points at it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, Self

from lading_format.errors import InvalidName
from lading_format.names import check_collection, check_project, check_settable_alias
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import AliasProtected, AliasRequires
from lading_server.common.roles import Role
from lading_server.common.settings import Settings
from lading_server.registry.domain.documents import MAX_KEY_CHARACTERS, dotted_keys
from lading_server.registry.domain.limits import check_tags
from lading_server.registry.store.alias_rules import (
    drop_rule,
    find_qualities,
    find_relying_rules,
    find_rules,
    list_rules,
    put_rule,
)
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import AliasMove, AliasRule, CollectionKey, JsonObject, Qualities
from lading_server.registry.store.store import RegistryStore

# All rules of an entity are one answer.
_MOST_RULES = 1000
_MOST_BYTES = 3 << 20
# What a rule takes in an answer besides its conditions, rounded up.
_RULE_BYTES = 512


@dataclass(frozen=True, slots=True)
class AliasRules:
    """The rules of an entity. Every method is inside the entity of its caller, whose role was checked before."""

    settings: Settings
    store: RegistryStore

    async def set(self, caller: Caller, rule: AliasRule) -> AliasRule:
        """Keep a rule, in place of one for the same project, collection and alias. Returns it as it is kept.

        What the alias points at already stays as it is: a rule is for moves that come.

        Raises:
            InvalidName: A name, a tag or a key of metadata breaks its rules.
            TooManyItems: The rule has too many conditions, or the entity too many rules.
        """
        rule = self._checked(rule)
        async with self.store.change(caller) as change:
            rules = {_place(one): one for one in await list_rules(change.connection, change.entity_id)}
            before = rules.get(_place(rule))
            rules[_place(rule)] = rule
            _check_all(rules.values())
            await put_rule(change, rule, before)
        return rule

    async def delete(self, caller: Caller, project: str, collection: str, alias: str) -> None:
        """Take a rule away. Raises InvalidName; does nothing where there is no such rule."""
        _check_place(project, collection, alias)
        async with self.store.change(caller) as change:
            await drop_rule(change, project, collection, alias)

    async def list(self, caller: Caller, project: str) -> Sequence[AliasRule]:
        """Return rules, sorted by project, collection and alias. Raises InvalidName.

        Args:
            project: Those that count in this project; empty for all.
        """
        if project:
            check_project(project)
        entity_id = await self.store.entities.find(caller.entity)
        if entity_id is None:
            return []
        async with self.store.database.read() as connection:
            return await list_rules(connection, entity_id, project)

    def _checked(self, rule: AliasRule) -> AliasRule:
        _check_place(rule.project, rule.collection, rule.alias)
        tags = check_tags(self.settings, rule.required_tags)
        keys = tuple(sorted({_check_key(key) for key in rule.required_metadata}))
        limit = self.settings.max_tags
        if len(tags) + len(keys) > limit:
            raise TooManyItems(
                f"{len(tags) + len(keys):,} conditions are too many: max_tags is {limit:,}; require fewer",
                limit_name="max_tags",
                limit=limit,
            )
        return rule._replace(required_tags=tags, required_metadata=keys)


class Traits(NamedTuple):
    """What a version has, as rules ask for it: its tags, and the dotted keys of its metadata."""

    tags: Set[str]
    keys: Set[str]

    @classmethod
    def of(cls, qualities: Qualities) -> Self:
        """Return the traits of a version."""
        return cls(qualities.tags, dotted_keys(qualities.metadata))


async def check_moves(
    change: Change, key: CollectionKey, moves: Sequence[AliasMove], new: Mapping[int, Qualities] | None = None
) -> None:
    """Raise unless the caller may make these moves, and versions have what rules require of them.

    A move that changes nothing is not one. Reads in the change, so a rule counts for whatever comes after it: one
    statement, another where a rule has conditions, and none where the entity has no rules.

    Args:
        new: Versions that have no rows yet.

    Raises:
        AliasProtected, AliasRequires: See `hold_against`.
    """
    moves = [move for move in moves if move.before != move.after]
    rules = await find_rules(change, key.project, key.name, {move.alias for move in moves})
    conditional = {rule.alias for rule in rules if rule.required_tags or rule.required_metadata}
    targets = {move.after.id for move in moves if move.after is not None and move.alias in conditional}
    qualities = dict(new or {})
    if targets - qualities.keys():
        qualities |= await find_qualities(change, targets - qualities.keys())
    traits = {number: Traits.of(found) for number, found in qualities.items()}
    hold_against(rules, moves, traits, is_admin=change.caller.may(Role.ADMIN))


def hold_against(
    rules: Sequence[AliasRule], moves: Sequence[AliasMove], traits: Mapping[int, Traits], *, is_admin: bool
) -> None:
    """Raise unless moves keep to the rules. Pure.

    Args:
        moves: Those that change something.
        traits: Of the versions that aliases with conditions are to point at, by their rows.
        is_admin: Whether the caller may do what admins may.

    Raises:
        AliasProtected: An alias is protected, and the caller is no admin.
        AliasRequires: A version lacks what a rule requires.
    """
    moved = {move.alias for move in moves}
    for rule in rules:
        if rule.is_protected and rule.alias in moved and not is_admin:
            where = f"{rule.project}/{rule.collection}" if rule.collection else f"all of {rule.project}"
            raise AliasProtected(
                f"alias {rule.alias!r} is protected in {where}: only admins set, move or remove it; ask one of them",
                alias=rule.alias,
            )
    for rule in rules:
        for move in moves:
            if move.alias == rule.alias and move.after is not None and (rule.required_tags or rule.required_metadata):
                tags, keys = _missing(rule, traits[move.after.id])
                if tags or keys:
                    raise _requires(rule, tags, keys, "the version lacks them; add them before the alias is set")


async def check_still_there(
    change: Change, version_id: int, lost_tags: Set[str], metadata_before: JsonObject | None
) -> None:
    """Raise AliasRequires when a change took something from a version that a rule requires where an alias points.

    Were it allowed, a rule would hold for one moment, and who relies on `production` would have to ask for the tag as
    well. And the tag's end would stop nobody who uses `production`, while moving the alias does: so that comes first.
    What the version lacked before is not lost.

    Args:
        version_id: The version. Links to it are looked at too.
        lost_tags: Tags that it had before the change and has not now.
        metadata_before: What its metadata was; None where it is the same.
    """
    if not lost_tags and metadata_before is None:
        return
    relying = await find_relying_rules(change, version_id)
    if not relying:
        return
    keys_before = dotted_keys(metadata_before or {})
    qualities = await find_qualities(change, {pointed_at for pointed_at, _ in relying})
    traits = {number: Traits.of(found) for number, found in qualities.items()}
    for pointed_at, rule in relying:
        tags, keys = _missing(rule, traits[pointed_at])
        tags, keys = [tag for tag in tags if tag in lost_tags], [key for key in keys if key in keys_before]
        if tags or keys:
            raise _requires(rule, tags, keys, "it points here or at a link to here; move it before you take them away")


def _missing(rule: AliasRule, traits: Traits) -> tuple[list[str], list[str]]:
    tags = [tag for tag in rule.required_tags if tag not in traits.tags]
    return tags, [key for key in rule.required_metadata if key not in traits.keys]


def _requires(rule: AliasRule, tags: Sequence[str], keys: Sequence[str], why: str) -> AliasRequires:
    named = [f"tag {tag!r}" for tag in tags] + [f"metadata {key!r}" for key in keys]
    return AliasRequires(
        f"alias {rule.alias!r} requires {', '.join(named)}: {why}",
        alias=rule.alias,
        tags=",".join(tags),
        metadata=",".join(keys),
    )


def _place(rule: AliasRule) -> tuple[str, str, str]:
    return rule.project, rule.collection, rule.alias


def _check_place(project: str, collection: str, alias: str) -> None:
    check_project(project)
    if collection:
        check_collection(project, collection)
    check_settable_alias(alias)


def _check_key(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isprintable() or "," in key:
        raise InvalidName(
            f"{key[:80]!r} is no key of metadata that a rule can require: write 1 to {MAX_KEY_CHARACTERS} printable "
            "characters without a comma, with dots for what is nested",
            field="required_metadata",
        )
    return key


def _check_all(rules: Collection[AliasRule]) -> None:
    """Raise TooManyItems unless all rules of an entity fit into one answer."""
    used_bytes = sum(
        _RULE_BYTES + sum(len(name.encode()) + 2 for name in (*rule.required_tags, *rule.required_metadata))
        for rule in rules
    )
    if len(rules) > _MOST_RULES or used_bytes > _MOST_BYTES:
        raise TooManyItems(
            f"an entity has at most {_MOST_RULES:,} rules, of {_MOST_BYTES:,} bytes together; make one for the whole "
            "project, or delete some",
            limit_name="alias_rules",
            limit=_MOST_RULES,
        )
