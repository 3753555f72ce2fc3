"""Many clients of one registry that commit, move aliases, link and resolve at random, and note what they are told.

They call raw stubs and not the SDK: the SDK repeats a call that failed for a passing reason, and here every status
counts. They share a few channels: a channel each would measure this process more than the server.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from lading_proto.registry.v1 import refs_pb2, registry_pb2_grpc, versions_pb2
from tests.support.wire import Wire, file_entry, reason_of

COLLECTIONS = [("vision", "digits"), ("vision", "faces"), ("audio", "words")]
PORTFOLIOS = ["Digit Reader", "Face Finder"]
_ALIASES = ["best", "staging", "candidate"]
_CONTENT = b"one file for all trees"
# Streams are not what is tested, and a server takes only so many.
_UPLOADS_AT_ONCE = 8
_FIRST_TREES = 10
# What each call may be refused with, as registry.proto says it.
_DOCUMENTED = {
    "resolve": {"COLLECTION_NOT_FOUND", "VERSION_NOT_FOUND"},
    "commit": {"ALIAS_MOVED", "ALIAS_NOT_FOUND"},
    "move": {"COLLECTION_NOT_FOUND", "VERSION_NOT_FOUND", "ALIAS_MOVED", "ALIAS_NOT_FOUND"},
    "link": {"COLLECTION_NOT_FOUND", "VERSION_NOT_FOUND", "ALIAS_MOVED", "ALIAS_NOT_FOUND"},
}

Place = tuple[str, str]


@dataclass
class Told:
    """What clients were told, all of them together.

    Attributes:
        outcomes: How often each call ended how: `ok`, or a reason.
        numbers: The version that has a number, of all that were told.
        newest: The highest number of each collection that anybody was told of.
        makers: How many calls were told that they made a version, by its id; the same request counts once.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    numbers: dict[tuple[str, str, int], str] = field(default_factory=dict)
    newest: dict[Place, int] = field(default_factory=dict)
    makers: Counter[str] = field(default_factory=Counter)

    def of(self, version: versions_pb2.Version) -> None:
        """Note a version; fails where its number is another's."""
        place = (version.project, version.collection)
        assert self.numbers.setdefault((*place, version.number), version.uid) == version.uid
        self.newest[place] = max(version.number, self.newest.get(place, 0))


class Trees:
    """Trees for the clients to commit: new ones, and ones that others commit at the same time."""

    def __init__(self, wire: Wire, session: str) -> None:
        self._wire = wire
        self._session = session
        self._uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)
        self._known: list[str] = []

    @classmethod
    async def begin(cls, wire: Wire) -> Trees:
        """Upload what all trees are made of, and a few of them, so that nobody waits for the first."""
        session = await wire.session()
        await wire.put_blob(session, _CONTENT)
        trees = cls(wire, session)
        for number in range(_FIRST_TREES):
            await trees.put(f"first-{number}.bin")
        return trees

    async def pick(self, rng: random.Random) -> str:
        """Return the digest of a tree that ingest has."""
        if self._known and rng.random() < 0.7:
            return rng.choice(self._known[-20:])
        return await self.put(f"{rng.getrandbits(64):016x}.bin")

    async def put(self, path: str) -> str:
        """Upload a tree of one file, and return its digest."""
        async with self._uploads:
            response = await self._wire.put_tree(self._session, [file_entry(path, _CONTENT)])
        self._known.append(response.tree.digest)
        return str(response.tree.digest)


class RegistryClient:
    """One client. What it does is random, from its own seed."""

    def __init__(self, channel: grpc.aio.Channel, wire: Wire, key: str, trees: Trees, told: Told, seed: str) -> None:
        self._stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {key}")]
        self._entity = wire.entity
        self._trees = trees
        self._told = told
        self._rng = random.Random(seed)

    async def step(self) -> None:
        """Make one call, or the same one twice at once."""
        kind, call = self._rng.choice(
            [
                *[("resolve", self._resolve)] * 6,
                *[("commit", self._commit)] * 3,
                *[("move", self._move)] * 4,
                ("link", self._link),
            ]
        )
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            assert reason in _DOCUMENTED[kind], f"{kind}: {error.code()} {reason} {error.details()}"
            self._told.outcomes[kind, reason] += 1
        else:
            self._told.outcomes[kind, "ok"] += 1

    async def _resolve(self) -> None:
        place = self._rng.choice([*COLLECTIONS, *(("model-registry", name) for name in PORTFOLIOS)])
        selector = self._rng.choice(["latest", "latest", *_ALIASES, "v0", "v1", "v5"])
        known = self._told.newest.get(place, 0)
        request = versions_pb2.GetVersionRequest(entity=self._entity, reference=f"{'/'.join(place)}:{selector}")
        version = (await self._call(self._stub.GetVersion, request)).version
        self._told.of(version)
        if selector == "latest":
            assert version.number >= known, f"{version.collection}:latest is v{version.number} and v{known} was told of"
            # Aliases and number are of one moment.
            assert "latest" in version.aliases

    async def _commit(self) -> None:
        project, collection = self._rng.choice(COLLECTIONS)
        tree = await self._trees.pick(self._rng)
        request = versions_pb2.CommitVersionRequest(
            entity=self._entity,
            project=project,
            collection=collection,
            type="dataset",
            tree_digest=tree,
            metadata_json='{"accuracy":0.5}',
            tags=self._rng.sample(["raw", "clean"], 1),
            aliases=self._changes(project, collection),
            request_id=self._id(),
        )
        answers = await self._perhaps_twice(lambda: self._call(self._stub.CommitVersion, request))
        version = answers[0].version
        assert version.tree_digest == tree
        self._told.of(version)
        self._told.makers[version.uid] += answers[0].created

    async def _move(self) -> None:
        project, collection = self._rng.choice(COLLECTIONS)
        number = self._rng.randrange(self._told.newest.get((project, collection), 0) + 1)
        changes = self._changes(project, collection) or [versions_pb2.AliasChange(alias="best")]
        move = refs_pb2.ChangeAliases(reference=f"{project}/{collection}:v{number}", aliases=changes)
        await self._update(refs_pb2.RefChange(aliases=move))

    async def _link(self) -> None:
        project, collection = self._rng.choice(COLLECTIONS)
        portfolio = self._rng.choice(PORTFOLIOS)
        number = self._rng.randrange(self._told.newest.get((project, collection), 0) + 1)
        changes = self._changes("model-registry", portfolio)
        link = refs_pb2.Link(source=f"{project}/{collection}:v{number}", portfolio=portfolio, aliases=changes)
        await self._update(refs_pb2.RefChange(link=link))

    async def _update(self, change: refs_pb2.RefChange) -> None:
        request = refs_pb2.UpdateRefsRequest(entity=self._entity, changes=[change], request_id=self._id())
        answers = await self._perhaps_twice(lambda: self._call(self._stub.UpdateRefs, request))
        (result,) = answers[0].results
        self._told.of(result.version)
        self._told.makers[result.version.uid] += result.created

    async def _perhaps_twice(self, call: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Make a call; sometimes send it twice at once, as after a lost connection: both are told the same."""
        if self._rng.random() < 0.9:
            return [await call()]
        answers = await asyncio.gather(call(), call(), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(failures) == len(answers):
            raise failures[0]
        # A request that was refused changed nothing, so the second may find what the first did not.
        good = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert all(answer == good[0] for answer in good), f"one request was answered in two ways: {good}"
        for failure in failures:
            assert isinstance(failure, grpc.aio.AioRpcError)
            assert reason_of(failure) in {"ALIAS_MOVED", "ALIAS_NOT_FOUND", "VERSION_NOT_FOUND", "COLLECTION_NOT_FOUND"}
        return good

    def _changes(self, project: str, collection: str) -> list[versions_pb2.AliasChange]:
        """Return up to two changes of aliases; most of them with a belief that is right now and then."""
        changes = []
        for alias in self._rng.sample(_ALIASES, self._rng.choice([0, 1, 1, 2])):
            change = versions_pb2.AliasChange(alias=alias, remove=self._rng.random() < 0.15)
            belief = self._rng.random()
            if belief < 0.4:
                change.expected_number = self._rng.randrange(self._told.newest.get((project, collection), 0) + 1)
            elif belief < 0.5:
                change.must_not_exist = True
            changes.append(change)
        return changes

    def _id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    async def _call(self, method: Any, request: Any) -> Any:
        return await method(request, metadata=self._metadata)
