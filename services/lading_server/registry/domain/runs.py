"""Runs: created, heard of, changed and ended, and shown with what they measured."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.errors import InvalidName
from lading_format.names import check_project, check_run_id
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import InvalidState, RunEnded, RunExists
from lading_server.common.settings import Settings
from lading_server.registry.domain.documents import parse_object
from lading_server.registry.domain.fingerprints import check_request, fingerprint
from lading_server.registry.domain.summaries import Merge, set_keys, with_last_values
from lading_server.registry.store.change import Change
from lading_server.registry.store.entities import ensure_project
from lading_server.registry.store.rows import RunRow, VersionRow
from lading_server.registry.store.runs import run_not_found
from lading_server.registry.store.schema import RunState
from lading_server.registry.store.store import RegistryStore

MOST_METRIC_KEYS = 1000
"""Keys of metrics that are told of a run: far more than people plot, and little enough for an answer."""
_MOST_VERSIONS = 1000
_MOST_LABEL_CHARACTERS = 256
# Eight random bytes: no two of a billion runs of an entity are likely to meet.
_MADE_UP_ID_BYTES = 8

_ENDS = (RunState.FINISHED, RunState.FAILED)


class NewRun(NamedTuple):
    """What a run is created with, as the request has it."""

    project: str
    run: str
    name: str
    job_type: str
    config_json: str


class RunDetails(NamedTuple):
    """A run with what it measured, used and logged; versions without card and metadata."""

    run: RunRow
    metric_keys: Sequence[str]
    inputs: Sequence[VersionRow]
    outputs: Sequence[VersionRow]


class Runs:
    """The runs of every entity. Each call is inside the entity of its caller.

    Rows that are returned have the last value of each metric in their summary.
    """

    def __init__(self, settings: Settings, store: RegistryStore) -> None:
        self._store = store
        self._max_bytes = settings.max_metadata_bytes
        self.heartbeat_seconds = settings.run_timeout_seconds / 3

    async def create(self, caller: Caller, new: NewRun, request_id: str) -> tuple[RunRow, bool]:
        """Start a run, or continue the one that is there; return it, and whether it is new.

        Raises:
            InvalidName, InvalidMetadata: A field breaks its rules.
            RunExists: A run of this id is in another project.
            RequestIdReused: The request id was used for another call.
        """
        project = check_project(new.project)
        run = check_run_id(new.run) if new.run else ""
        _check_label(new.name, "name")
        _check_label(new.job_type, "job_type")
        config = parse_object(new.config_json, "config_json", self._max_bytes)
        check_request(request_id)
        call = fingerprint("CreateRun", **new._asdict())
        async with self._store.change(caller) as change:
            result = await change.recall(request_id, call)
            if result is None:
                found = await self._store.runs.get(change.connection, change.entity_id, run) if run else None
                if found is None:
                    run = run or secrets.token_hex(_MADE_UP_ID_BYTES)
                    await self._add(change, new._replace(project=project, run=run), config)
                else:
                    await self._continue(change, found, project, config)
                result = {"run": run, "created": found is None}
                await change.remember(request_id, call, result)
            return await self._shown(change.connection, change.entity_id, result["run"]), result["created"]

    async def get(self, caller: Caller, run: str) -> RunDetails:
        """Return a run with its keys, inputs and outputs, of each the first 1,000. Raises InvalidName, RunNotFound."""
        check_run_id(run)
        entity_id = await self._store.entities.find(caller.entity)
        runs, lineage = self._store.runs, self._store.lineage
        async with self._store.database.read() as connection:
            row = await runs.find(connection, entity_id, run)
            values = (await self._last_values(connection, [row])).get(row.id, {})
            inputs = await runs.inputs(connection, row.id, _MOST_VERSIONS)
            outputs = await runs.outputs(connection, row.id, _MOST_VERSIONS)
            rows = await lineage.versions(connection, {*inputs, *outputs})
        # Versions of a collection that is just being deleted are live for a while, and not shown any more.
        return RunDetails(
            run=row._replace(summary=with_last_values(row.summary, values)),
            metric_keys=list(values),
            inputs=[rows[number] for number in inputs if number in rows],
            outputs=[rows[number] for number in outputs if number in rows],
        )

    async def update(self, caller: Caller, run: str, config_json: str, summary_json: str, request_id: str) -> RunRow:
        """Set keys of config and summary, and count it as a heartbeat.

        Raises:
            InvalidName, InvalidMetadata: A field breaks its rules.
            RunNotFound: The entity has no such run.
            RequestIdReused: The request id was used for another call.
        """
        check_run_id(run)
        config = parse_object(config_json, "config_json", self._max_bytes)
        summary = parse_object(summary_json, "summary_json", self._max_bytes)
        check_request(request_id)
        call = fingerprint("UpdateRun", run=run, config=config_json, summary=summary_json)
        async with self._store.change(caller) as change:
            if await change.recall(request_id, call) is None:
                row = _heard_of(change, await self._store.runs.find(change.connection, change.entity_id, run))
                row = self._set(change, row, config, summary)
                await self._store.runs.save(change, row)
                await change.remember(request_id, call, {})
            return await self._shown(change.connection, change.entity_id, run)

    async def beat(self, caller: Caller, run: str) -> RunState:
        """Keep that a run lives, and return what it counts as. Raises InvalidName, RunNotFound."""
        check_run_id(run)
        entity_id = await self._store.entities.find(caller.entity)
        if entity_id is None:
            raise run_not_found(run)
        async with self._store.database.write() as connection:
            beat = await self._store.runs.beat(connection, entity_id, run, self._store.now_ms())
        if beat is not None:
            return beat.state
        async with self._store.change(caller) as change:
            return (await self.revive(change, run)).state

    async def finish(self, caller: Caller, run: str, state: RunState, summary_json: str, request_id: str) -> RunRow:
        """End a run as `state` says.

        Raises:
            InvalidState: `state` is no end.
            InvalidName, InvalidMetadata: A field breaks its rules.
            RunNotFound: The entity has no such run.
            RunEnded: It was ended in another way before.
            RequestIdReused: The request id was used for another call.
        """
        check_run_id(run)
        if state not in _ENDS:
            raise InvalidState("a run ends as FINISHED or as FAILED; say which")
        summary = parse_object(summary_json, "summary_json", self._max_bytes)
        check_request(request_id)
        call = fingerprint("FinishRun", run=run, state=state.value, summary=summary_json)
        async with self._store.change(caller) as change:
            if await change.recall(request_id, call) is None:
                row = await self._store.runs.find(change.connection, change.entity_id, run)
                await self._store.runs.save(change, self._end(change, row, state, summary))
                await change.remember(request_id, call, {})
            return await self._shown(change.connection, change.entity_id, run)

    async def with_last_values(self, connection: AsyncConnection, rows: Sequence[RunRow]) -> list[RunRow]:
        """Return runs with the last values of their metrics in their summaries; one query for all."""
        values = await self._last_values(connection, rows)
        return [row._replace(summary=with_last_values(row.summary, values.get(row.id, {}))) for row in rows]

    async def revive(self, change: Change, run: str) -> RunRow:
        """Keep, in a change, that a run lives: one that counted as crashed is running again. Raises RunNotFound."""
        row = _heard_of(change, await self._store.runs.find(change.connection, change.entity_id, run))
        await self._store.runs.save(change, row)
        return row

    async def _add(self, change: Change, new: NewRun, config: dict[str, Any]) -> None:
        project_id = await ensure_project(change, new.project)
        text = set_keys("{}", config, "config_json", self._max_bytes).text
        name = new.name or new.run
        await self._store.runs.add(change, project_id, new.run, display_name=name, job_type=new.job_type, config=text)
        change.add_event(
            "run.created",
            new.project,
            run=new.run,
            after={"name": name, "job_type": new.job_type, "state": RunState.RUNNING.value, "config": config},
        )

    async def _continue(self, change: Change, found: RunRow, project: str, config: dict[str, Any]) -> None:
        if found.project != project:
            raise RunExists(
                f"run {found.run} is in project {found.project}; continue it there, or choose another run_id",
                project=found.project,
            )
        merge = set_keys(found.config, config, "config_json", self._max_bytes)
        row = found._replace(state=RunState.RUNNING, ended_at_ms=None, heartbeat_at_ms=change.now_ms, config=merge.text)
        if found.state is not RunState.RUNNING:
            _add_event(change, "run.resumed", row, found.state, {"config": merge})
        elif merge.after:
            _add_event(change, "run.updated", row, row.state, {"config": merge})
        await self._store.runs.save(change, row)

    def _set(self, change: Change, row: RunRow, config: dict[str, Any], summary: dict[str, Any]) -> RunRow:
        merges = {
            "config": set_keys(row.config, config, "config_json", self._max_bytes),
            "summary": set_keys(row.summary, summary, "summary_json", self._max_bytes),
        }
        row = row._replace(config=merges["config"].text, summary=merges["summary"].text)
        if merges["config"].after or merges["summary"].after:
            _add_event(change, "run.updated", row, row.state, merges)
        return row

    def _end(self, change: Change, row: RunRow, state: RunState, summary: dict[str, Any]) -> RunRow:
        if row.state is state:
            return self._set(change, row._replace(heartbeat_at_ms=change.now_ms), {}, summary)
        if row.state in _ENDS:
            raise RunEnded(
                f"run {row.run} was ended as {row.state.value} before; create it again to continue it",
                state=row.state.value,
            )
        merge = set_keys(row.summary, summary, "summary_json", self._max_bytes)
        ended = row._replace(state=state, summary=merge.text, heartbeat_at_ms=change.now_ms, ended_at_ms=change.now_ms)
        _add_event(change, "run.ended", ended, row.state, {"summary": merge})
        return ended

    async def _shown(self, connection: AsyncConnection, entity_id: int, run: str) -> RunRow:
        row = await self._store.runs.find(connection, entity_id, run)
        return (await self.with_last_values(connection, [row]))[0]

    async def _last_values(self, connection: AsyncConnection, rows: Sequence[RunRow]) -> dict[int, dict[str, float]]:
        return await self._store.metrics.last_values(connection, [row.id for row in rows], MOST_METRIC_KEYS)


def _heard_of(change: Change, row: RunRow) -> RunRow:
    """Return a run as it is when it is heard of; makes an event where it counted as crashed."""
    row = row._replace(heartbeat_at_ms=change.now_ms)
    if row.state is RunState.CRASHED:
        row = row._replace(state=RunState.RUNNING, ended_at_ms=None)
        _add_event(change, "run.resumed", row, RunState.CRASHED, {})
    return row


def _add_event(change: Change, kind: str, row: RunRow, old_state: RunState, merges: Mapping[str, Merge]) -> None:
    """Keep what changed of a run: its state, and those keys of config and summary that changed."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if row.state is not old_state:
        before["state"], after["state"] = old_state.value, row.state.value
    for field, merge in merges.items():
        if merge.after:
            before[field], after[field] = merge.before, merge.after
    change.add_event(kind, row.project, run=row.run, before=before, after=after)


def _check_label(text: str, field: str) -> None:
    """Raise InvalidName unless a text that people choose freely can stand in one line. It may be empty."""
    if len(text) > _MOST_LABEL_CHARACTERS or not text.isprintable():
        raise InvalidName(
            f"{field} {text[:80]!r} is not usable: use up to {_MOST_LABEL_CHARACTERS} printable characters", field=field
        )
