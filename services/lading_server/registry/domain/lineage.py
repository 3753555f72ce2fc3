"""Lineage: which versions runs used, and the graph around a version, breadth first and within bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import Enum
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.names import check_run_id, check_type
from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidRange
from lading_server.common.registry_errors import TypeMismatch
from lading_server.common.settings import Settings
from lading_server.registry.domain.fingerprints import check_request, fingerprint
from lading_server.registry.domain.outcomes import Outcome, from_memory, to_memory
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.runs import Runs
from lading_server.registry.store.lineage import LineageQueries, RunEdge
from lading_server.registry.store.rows import RunRow, VersionRow
from lading_server.registry.store.store import RegistryStore

_DEFAULT_DEPTH = 10
_MOST_DEPTH = 100
# Edges of each kind, for a node of the largest graph: 500 runs that share 500 inputs have more than anybody draws.
_EDGES_PER_NODE = 10

_Follow = Callable[[AsyncConnection, Collection[int], int], Awaitable[list[int]]]


class Direction(Enum):
    """Which way a graph is followed."""

    BOTH = "both"
    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


class LineageGraph(NamedTuple):
    """Versions and runs, the nearest first, and what joins them; versions without card and metadata, runs without
    config and summary. A link is joined with its source by the `source_id` of its row.
    """

    root_uid: bytes
    versions: Sequence[VersionRow]
    runs: Sequence[RunRow]
    used: Sequence[RunEdge]
    logged: Sequence[RunEdge]
    truncated: bool


class Lineage:
    """The lineage of every version. Each call is inside the entity of its caller."""

    def __init__(self, settings: Settings, store: RegistryStore, runs: Runs) -> None:
        self._store = store
        self._runs = runs
        self._max_nodes = settings.max_lineage_nodes

    async def use_version(
        self, caller: Caller, run: str, reference: str, type_name: str, request_id: str
    ) -> VersionRow:
        """Resolve a reference, keep that the run used what it means, and count it as a heartbeat.

        A link is kept as the link: what it points at is found from there.

        Args:
            type_name: What its type should be; empty to take any.

        Raises:
            InvalidName, InvalidDigest: A field breaks its rules.
            RunNotFound, CollectionNotFound, VersionNotFound: What is named is not there.
            TypeMismatch: It is of another type.
            RequestIdReused: The request id was used for another call.
        """
        check_run_id(run)
        wanted = reference_of(caller, reference)
        if type_name:
            check_type(type_name)
        check_request(request_id)
        call = fingerprint("UseVersion", run=run, reference=reference, type=type_name)
        versions = self._store.versions
        async with self._store.change(caller) as change:
            memory = await change.recall(request_id, call)
            if memory is not None:
                return (await from_memory(change, versions, memory)).version
            row = await self._runs.revive(change, run)
            version = await versions.resolve(change.connection, change.entity_id, wanted)
            if type_name and version.type != type_name:
                raise TypeMismatch(
                    f"{version.name} is of type {version.type!r} and not {type_name!r}; use another, or ask for that",
                    expected=type_name,
                    actual=version.type,
                )
            if await self._store.runs.use(change, row.id, version.id):
                change.add_event(
                    "version.used",
                    version.project,
                    collection=version.collection,
                    version_uid=version.uid,
                    run=run,
                    after={"number": version.number},
                )
            await change.remember(request_id, call, to_memory(Outcome(version)))
            return version

    async def graph(self, caller: Caller, reference: str, direction: Direction, depth: int) -> LineageGraph:
        """Return the graph around a version.

        A version, its source and every link to it are one place: to go from one to another costs no depth.

        Args:
            depth: How many runs to pass, one way; 0 for 10.

        Raises:
            InvalidName, InvalidDigest: The reference breaks its rules.
            InvalidRange: `depth` is not 0 to 100.
            CollectionNotFound, VersionNotFound: What the reference names is not there.
        """
        wanted = reference_of(caller, reference)
        if not 0 <= depth <= _MOST_DEPTH:
            raise InvalidRange(f"depth is {depth}; give 1 to {_MOST_DEPTH}, or 0 for {_DEFAULT_DEPTH}")
        entity_id = await self._store.entities.find(caller.entity)
        async with self._store.database.read() as connection:
            version = await self._store.versions.resolve(connection, entity_id, wanted)
            nodes = _Nodes(self._max_nodes)
            goes_on = await self._walk(connection, version.source_id or version.id, nodes, direction, depth)
            return await self._read(connection, version.source_uid or version.uid, nodes, goes_on)

    async def _walk(
        self, connection: AsyncConnection, root: int, nodes: _Nodes, direction: Direction, depth: int
    ) -> bool:
        """Fill `nodes`, the nearest first whichever way; return whether the graph goes on beyond them."""
        queries = self._store.lineage
        # The root stands first although its links are nearer to one that was asked about by a link.
        place = nodes.take_versions([root])
        place += nodes.take_versions(await queries.with_links(connection, [root], nodes.most + 1))
        walks = []
        if direction is not Direction.DOWNSTREAM:
            walks.append(_Walk(queries, nodes, queries.runs_that_logged, queries.used_by, place))
        if direction is not Direction.UPSTREAM:
            walks.append(_Walk(queries, nodes, queries.runs_that_used, queries.logged_by, place))
        for _ in range(depth or _DEFAULT_DEPTH):
            for walk in walks:
                await walk.pass_runs(connection)
        # No more than one query each: what was full is known to go on.
        return nodes.is_full or any([await walk.goes_on(connection) for walk in walks])

    async def _read(self, connection: AsyncConnection, root_uid: bytes, nodes: _Nodes, goes_on: bool) -> LineageGraph:
        queries = self._store.lineage
        versions = await queries.versions(connection, nodes.versions)
        runs = await queries.runs(connection, nodes.runs)
        most = self._max_nodes * _EDGES_PER_NODE
        used = await queries.edges_used(connection, nodes.runs, nodes.versions, most + 1)
        logged = await queries.edges_logged(connection, nodes.runs, nodes.versions, most + 1)
        return LineageGraph(
            root_uid=root_uid,
            # Versions of a collection that is just being deleted are live for a while, and not shown any more.
            versions=[versions[number] for number in nodes.versions if number in versions],
            runs=[runs[number] for number in nodes.runs],
            used=[edge for edge in used[:most] if edge.version_id in versions],
            logged=[edge for edge in logged[:most] if edge.version_id in versions],
            truncated=goes_on or len(used) > most or len(logged) > most,
        )


class _Nodes:
    """What the graph has, in the order in which it was found. Invariant: at most `most` nodes."""

    def __init__(self, most: int) -> None:
        self.most = most
        # As ordered sets.
        self.versions: dict[int, None] = {}
        self.runs: dict[int, None] = {}
        self.is_full = False

    def take_versions(self, found: Sequence[int]) -> list[int]:
        """Return those of the versions that the graph has now; the rest found no place."""
        return self._take(self.versions, found)

    def take_runs(self, found: Sequence[int]) -> list[int]:
        """Return those of the runs that the graph has now; the rest found no place."""
        return self._take(self.runs, found)

    def _take(self, kept: dict[int, None], found: Sequence[int]) -> list[int]:
        for number in found:
            if number in kept:
                continue
            if len(self.versions) + len(self.runs) == self.most:
                self.is_full = True
                break
            kept[number] = None
        return [number for number in found if number in kept]


class _Walk:
    """One way through the graph, a step a run: one query for the runs, one for their versions, one for links.

    Queries are asked for one node more than the graph can have, so that what this walk has seen never hides a new one.
    """

    def __init__(
        self, queries: LineageQueries, nodes: _Nodes, next_runs: _Follow, next_versions: _Follow, start: list[int]
    ) -> None:
        self._queries = queries
        self._nodes = nodes
        self._next_runs = next_runs
        self._next_versions = next_versions
        self._border = start
        self._seen_versions = set(start)
        self._seen_runs: set[int] = set()

    async def pass_runs(self, connection: AsyncConnection) -> None:
        """Go on by one run."""
        if self._nodes.is_full or not self._border:
            return
        most = self._nodes.most + 1
        runs = self._nodes.take_runs(await self._new_runs(connection))
        self._seen_runs.update(runs)
        self._border = []
        for follow, origins in ((self._next_versions, runs), (self._queries.with_links, self._border)):
            if origins:
                found = await follow(connection, origins, most)
                new = self._nodes.take_versions([number for number in found if number not in self._seen_versions])
                self._seen_versions.update(new)
                self._border += new

    async def goes_on(self, connection: AsyncConnection) -> bool:
        """Tell whether there are runs beyond the border."""
        return bool(self._border) and bool(await self._new_runs(connection))

    async def _new_runs(self, connection: AsyncConnection) -> list[int]:
        found = await self._next_runs(connection, self._border, self._nodes.most + 1)
        return [number for number in found if number not in self._seen_runs]
