"""Rules of retention: set, told and taken away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lading_format.names import MODEL_REGISTRY, check_collection, check_project
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import InvalidRetentionRule, WrongKind
from lading_server.common.settings import Settings
from lading_server.registry.domain.documents import MAX_KEY_CHARACTERS
from lading_server.registry.domain.limits import check_tags
from lading_server.registry.domain.time_to_live import MAX_TTL_SECONDS
from lading_server.registry.store.retention_rules import drop_rule, find_rule, list_rules, put_rule
from lading_server.registry.store.rows import RetentionRule
from lading_server.registry.store.store import RegistryStore

# retention.proto has these numbers too. What is counted in is passed over to find where the last and the best end.
_MOST_KEPT = 1_000_000
_MOST_DAYS = 36_500
# All rules of an entity are one answer.
_MOST_RULES = 1000
_MOST_BYTES = 3 << 20
# What a rule takes in an answer besides its tags and its key, rounded up.
_RULE_BYTES = 512


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """The rules of an entity. Every method is inside the entity of its caller, whose role was checked before."""

    settings: Settings
    store: RegistryStore

    async def set(self, caller: Caller, rule: RetentionRule) -> RetentionRule:
        """Keep a rule, in place of one for the same project and collection. Returns it as it is kept.

        Raises:
            InvalidName: A name or a tag breaks its rules.
            InvalidRetentionRule, TooManyItems, WrongKind: See `checked`; or the entity has too many rules.
        """
        rule = self.checked(rule)
        async with self.store.change(caller) as change:
            rules = {one.is_about: one for one in await list_rules(change.connection, change.entity_id)}
            before = rules.get(rule.is_about)
            rules[rule.is_about] = rule
            _check_all(rules.values())
            return await put_rule(change, rule, before)

    async def delete(self, caller: Caller, project: str, collection: str) -> None:
        """Take a rule away. Raises InvalidName; does nothing where there is no such rule."""
        _check_place(project, collection)
        async with self.store.change(caller) as change:
            await drop_rule(change, project, collection)

    async def get(self, caller: Caller, project: str, collection: str) -> RetentionRule | None:
        """Return the rule that counts for a collection, or for a project; None where none does. Raises InvalidName."""
        _check_place(project, collection)
        entity_id = await self.store.entities.find(caller.entity)
        if entity_id is None:
            return None
        async with self.store.database.read() as connection:
            return await find_rule(connection, entity_id, project, collection)

    async def list(self, caller: Caller, project: str) -> Sequence[RetentionRule]:
        """Return rules, sorted by project and collection. Raises InvalidName.

        Args:
            project: The only project; empty for all.
        """
        if project:
            check_project(project)
        entity_id = await self.store.entities.find(caller.entity)
        if entity_id is None:
            return []
        async with self.store.database.read() as connection:
            return await list_rules(connection, entity_id, project)

    def checked(self, rule: RetentionRule) -> RetentionRule:
        """Return a rule in the form that is kept: tags sorted, each once.

        Raises:
            InvalidName: A name or a tag breaks its rules.
            InvalidRetentionRule: Nothing would be kept by it, its parts do not go together, or one is too large.
            TooManyItems: It has too many tags.
            WrongKind: It is for the project of registered models.
        """
        _check_place(rule.project, rule.collection)
        if rule.project == MODEL_REGISTRY:
            raise WrongKind(
                f"collections of {MODEL_REGISTRY} have no rules of retention: what is linked there was chosen by hand; "
                "unlink what shall go"
            )
        _check_parts(rule)
        return rule._replace(keep_tags=check_tags(self.settings, rule.keep_tags))


def _check_place(project: str, collection: str) -> None:
    check_project(project)
    if collection:
        check_collection(project, collection)


def _check_parts(rule: RetentionRule) -> None:
    parts = (rule.keep_last, rule.keep_best, rule.keep_days, rule.keep_tags)
    if rule.keep_all and any(parts):
        raise _invalid(
            "keep_all", "keep_all goes with no other part: they would never count; leave one or the others out"
        )
    if not rule.keep_all and not any(parts):
        raise _invalid(
            "keep_all", "the rule keeps nothing: give one of keep_last, keep_best, keep_days, keep_tags, or keep_all"
        )
    if bool(rule.keep_best) != bool(rule.best_key):
        raise _invalid("best_by", "keep_best and best_by go together: say how many, and by what")
    if rule.best_is_smallest and not rule.keep_best:
        raise _invalid("best_order", "best_order goes with keep_best")
    if len(rule.best_key) > MAX_KEY_CHARACTERS or not rule.best_key.isprintable():
        raise _invalid("best_by", f"a key of metadata has 1 to {MAX_KEY_CHARACTERS} printable characters")
    for field, most in (
        ("keep_last", _MOST_KEPT),
        ("keep_best", _MOST_KEPT),
        ("keep_days", _MOST_DAYS),
        ("default_ttl_seconds", MAX_TTL_SECONDS),
    ):
        if getattr(rule, field) > most:
            raise _invalid(field, f"{field} is {getattr(rule, field):,} and at most {most:,}")


def _invalid(field: str, message: str) -> InvalidRetentionRule:
    return InvalidRetentionRule(message, field=field)


def _check_all(rules: Collection[RetentionRule]) -> None:
    """Raise TooManyItems unless all rules of an entity fit into one answer."""
    used_bytes = sum(
        _RULE_BYTES + len(rule.best_key.encode()) + sum(len(tag.encode()) + 2 for tag in rule.keep_tags)
        for rule in rules
    )
    if len(rules) > _MOST_RULES or used_bytes > _MOST_BYTES:
        raise TooManyItems(
            f"an entity has at most {_MOST_RULES:,} rules of retention, of {_MOST_BYTES:,} bytes together; make one "
            "for the whole project, or delete some",
            limit_name="retention_rules",
            limit=_MOST_RULES,
        )
