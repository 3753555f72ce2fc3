"""What retention deletes: simulated a page at a time, and applied in bounded pieces. Both go by `judge`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lading_format.names import check_collection, check_project
from lading_server.common.callers import Caller
from lading_server.common.page_tokens import check_position, make_token, open_token, page_limit
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.retention_plan import Verdict, judge
from lading_server.registry.domain.retention_rules import RetentionRules
from lading_server.registry.domain.versions import remove_version
from lading_server.registry.store.change import Change
from lading_server.registry.store.retention import Scope
from lading_server.registry.store.retention_rules import find_rule
from lading_server.registry.store.rows import CollectionKey, Ranks, RetentionFacts, RetentionRule
from lading_server.registry.store.store import RegistryStore

_log = logging.getLogger(__name__)

_PAGE_SIZE = 1000
# A verdict takes up to a kilobyte of an answer.
_MOST_VERDICTS = 3000
# What one piece of the work looks at and deletes: about a second. It ends soon after it reached one of them.
_PIECE_LOOKS = 20_000
_PIECE_DELETES = 500
# Rows that are read at once, and versions that are deleted in one change: about a tenth of a second of the writer.
_READ_ROWS = 1000
_CHANGE_ROWS = 100
# How often a collection is looked at anew because it changed, before it is left to the next time.
_ATTEMPTS = 5


class Totals(NamedTuple):
    """Sums of verdicts. `going_bytes` is at most what is freed in the end: versions share content."""

    kept: int = 0
    going: int = 0
    going_bytes: int = 0

    def with_verdict(self, facts: RetentionFacts, verdict: Verdict) -> Totals:
        """Return the sums with one more version."""
        if verdict.goes:
            return Totals(self.kept, self.going + 1, self.going_bytes + facts.size_bytes)
        return self._replace(kept=self.kept + 1)


class Judged(NamedTuple):
    """A version and what becomes, or became, of it."""

    key: CollectionKey
    facts: RetentionFacts
    verdict: Verdict


class Simulation(NamedTuple):
    """A page of verdicts, with the sums of it and of all pages before it."""

    rows: list[Judged]
    totals: Totals
    rule: RetentionRule | None
    token: str


class Position(NamedTuple):
    """Where the work goes on. First what is due by its time, by `(end, row)`, then by rules, by `(collection, number)`.

    Invariant: everything before the position was judged by the moment `now_ms`. What is due has the position of the
    last that was looked at; by rules it is that of the next. The oldest go first: the other way round `latest` would
    move each time.
    """

    now_ms: int
    is_by_rules: bool = False
    major: int = 0
    minor: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """What retention deletes. Every method is inside the entity of its caller, whose role was checked before."""

    rules: RetentionRules
    store: RegistryStore

    async def simulate(
        self, caller: Caller, project: str, collection: str, rule: RetentionRule | None, page: PageRequest
    ) -> Simulation:
        """Tell what would go of a collection, the newest first. Changes nothing.

        Args:
            rule: The one to try; None for the one that counts.

        Raises:
            InvalidName, InvalidPageSize, InvalidPageToken: The request cannot be taken.
            CollectionNotFound: The entity has no such collection.
            InvalidRetentionRule, TooManyItems, WrongKind: See `RetentionRules.checked`.
        """
        check_collection(check_project(project), collection)
        if rule is not None:
            rule = self.rules.checked(rule._replace(project=project, collection=collection))
        entity_id = await self.store.entities.find(caller.entity)
        async with self.store.database.read() as connection:
            collection_id = await self.store.lists.collection_id(connection, entity_id, project, collection)
            if rule is None and entity_id is not None:
                rule = await find_rule(connection, entity_id, project, collection)
            # A token is good for one rule: with another one its ranks would mean nothing.
            scope = (caller.entity, "SimulateRetention", project, collection, rule)
            limit = page_limit(page.size, _PAGE_SIZE, min(self.rules.settings.max_page_size, _MOST_VERDICTS))
            begun = _open_simulation(page.token, scope)
            if begun is None:
                now_ms = self.store.now_ms()
                ranks = await self.store.retention.ranks(connection, collection_id, rule, now_ms)
                before, totals = None, Totals()
            else:
                before, now_ms, ranks, totals = begun
            found = await self.store.retention.page(connection, collection_id, rule, before, limit + 1)
        key = CollectionKey(collection_id, project, collection)
        rows = [Judged(key, facts, judge(facts, rule, ranks, now_ms)) for facts in found[:limit]]
        for row in rows:
            totals = totals.with_verdict(row.facts, row.verdict)
        token = _simulation_token(scope, rows[-1].facts.number, now_ms, ranks, totals) if len(found) > limit else ""
        return Simulation(rows, totals, rule, token)

    async def apply(self, caller: Caller, project: str, collection: str, token: str) -> tuple[list[Judged], str]:
        """Delete a bounded piece of what goes now, and return it with the token of the next piece; empty at the end.

        Raises:
            InvalidName, InvalidPageToken: The request cannot be taken.
        """
        if project:
            check_project(project)
        if collection:
            check_collection(check_project(project), collection)
        scope = (caller.entity, "ApplyRetention", project, collection)
        begun = open_token(token, scope)
        position = None
        if begun is not None:
            check_position(begun, (int, bool, int, int))
            position = Position(*begun)
            # A token is not sealed: no moment that is still to come.
            position = position._replace(now_ms=min(position.now_ms, self.store.now_ms()))
        deleted, following = await self.piece(caller, Scope(project, collection), position)
        return deleted, "" if following is None else make_token(scope, following)

    async def piece(
        self, caller: Caller, scope: Scope, position: Position | None
    ) -> tuple[list[Judged], Position | None]:
        """Delete a bounded piece of what goes; return it, and where to go on, or None when nothing is left.

        Args:
            position: Where to go on; None to begin, with what goes now.
        """
        entity_id = await self.store.entities.ensure(caller.entity, self.store.now_ms())
        work = _Work(self.store, caller, entity_id, scope)
        at: Position | None = position or Position(self.store.now_ms())
        while at is not None and not work.is_enough:
            at = await (work.by_rules(at) if at.is_by_rules else work.by_time(at))
        return work.deleted, at


class _Moved(Exception):
    """Something happened since the ranks were made that may have more versions stay. They are made anew."""


class _Work:
    """One piece of the work, and what came of it."""

    def __init__(self, store: RegistryStore, caller: Caller, entity_id: int, scope: Scope) -> None:
        self._store = store
        self._caller = caller
        self._entity_id = entity_id
        self._scope = scope
        self.deleted: list[Judged] = []
        self._looks = 0

    @property
    def is_enough(self) -> bool:
        """Whether so much was deleted, or looked at, that the piece should end."""
        return len(self.deleted) >= _PIECE_DELETES or self._looks >= _PIECE_LOOKS

    async def by_time(self, at: Position) -> Position:
        """Delete some of those whose time is over."""
        after = (at.major, at.minor) if at.major else None
        async with self._store.database.read() as connection:
            found = await self._store.retention.due(
                connection, self._entity_id, self._scope, at.now_ms, after, _READ_ROWS
            )
        self._looks += len(found)
        going = [due for due in found if judge(due.facts, None, Ranks(), at.now_ms).goes]
        for some in _batches(going):
            async with self._store.change(self._caller) as change:
                keys = {due.facts.id: due.key for due in some}
                judged = await self._remove(change, keys, None, Ranks(), at.now_ms)
            self.deleted += judged
        if len(found) < _READ_ROWS:
            return Position(at.now_ms, is_by_rules=True)
        last = found[-1].facts
        return at._replace(major=last.expires_at_ms or 0, minor=last.id)

    async def by_rules(self, at: Position) -> Position | None:
        """Delete what goes of one collection, or of a part of it."""
        queries = self._store.retention
        self._looks += 1
        async with self._store.database.read() as connection:
            key = await queries.next_ruled(connection, self._entity_id, self._scope, at.major)
        if key is None:
            return None
        first = at.minor if key.id == at.major else 0
        for _ in range(_ATTEMPTS):
            try:
                return await self._in_collection(key, first, at.now_ms)
            except _Moved:
                continue
        _log.info("retention of %s/%s is left to the next time: it changes too often", key.project, key.name)
        return Position(at.now_ms, True, key.id + 1)

    async def _in_collection(self, key: CollectionKey, first: int, now_ms: int) -> Position:
        """Delete what goes from a number on, and return where to go on.

        Raises:
            _Moved: The collection changed. What was deleted before stays so.
        """
        queries, done = self._store.retention, Position(now_ms, True, key.id + 1)
        async with self._store.database.read() as connection:
            # The revision first: the ranks hold what happened up to it, and perhaps more.
            revision = await queries.revision(connection)
            rule = await find_rule(connection, self._entity_id, key.project, key.name)
            if rule is None or rule.keep_all:
                return done
            ranks = await queries.ranks(connection, key.id, rule, now_ms)
        if _keeps_all(rule, ranks):
            return done
        while True:
            async with self._store.database.read() as connection:
                found = await queries.candidates(connection, key.id, rule, ranks, now_ms, first, _READ_ROWS)
            self._looks += len(found)
            going = [facts for facts in found if judge(facts, rule, ranks, now_ms).goes]
            for some in _batches(going):
                async with self._store.change(self._caller) as change:
                    same = await find_rule(change.connection, self._entity_id, key.project, key.name)
                    if same != rule or await queries.has_changed(change.connection, self._entity_id, key, revision):
                        raise _Moved
                    judged = await self._remove(change, {facts.id: key for facts in some}, rule, ranks, now_ms)
                # What was deleted just now had none of the ranks.
                revision = change.revision
                self.deleted += judged
            if len(found) < _READ_ROWS:
                return done
            first = found[-1].number + 1
            if self.is_enough:
                return Position(now_ms, True, key.id, first)

    async def _remove(
        self, change: Change, keys: dict[int, CollectionKey], rule: RetentionRule | None, ranks: Ranks, now_ms: int
    ) -> list[Judged]:
        """Delete those of these versions that still go: an alias may have been set a moment ago."""
        removed = []
        for facts in await self._store.retention.facts(change.connection, sorted(keys), rule):
            verdict = judge(facts, rule, ranks, now_ms)
            if verdict.goes:
                # One after the other: cards and metadata of a hundred versions may be fifty megabytes.
                row = await self._store.versions.by_id(change.connection, facts.id)
                await remove_version(change, row, why=f"retention: {verdict.why}")
                removed.append(Judged(keys[facts.id], facts, verdict))
        return removed


def _keeps_all(rule: RetentionRule, ranks: Ranks) -> bool:
    """Tell whether so few versions count that a part of the rule keeps all of them."""
    return bool((rule.keep_last and ranks.last_number is None) or (rule.keep_best and ranks.best is None))


def _batches(items: Sequence[Any]) -> list[Any]:
    return [items[at : at + _CHANGE_ROWS] for at in range(0, len(items), _CHANGE_ROWS)]


def _simulation_token(scope: Sequence[object], number: int, now_ms: int, ranks: Ranks, totals: Totals) -> str:
    # Ranks without None, which a token does not hold: no version has the number -1.
    last = -1 if ranks.last_number is None else ranks.last_number
    value, best_number = ranks.best or (None, -1)
    return make_token(scope, (number, now_ms, last, value is not None, value or 0.0, best_number, *totals))


def _open_simulation(token: str, scope: Sequence[object]) -> tuple[int, int, Ranks, Totals] | None:
    position = open_token(token, scope)
    if position is None:
        return None
    check_position(position, (int, int, int, bool, float, int, int, int, int))
    number, now_ms, last, has_value, value, best_number, *totals = position
    best = None if best_number < 0 else (value if has_value else None, best_number)
    return number, now_ms, Ranks(None if last < 0 else last, best), Totals(*totals)
