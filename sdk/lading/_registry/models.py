"""What the registry's calls take and return: plain values that know no protocol. Versions are in lading._version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lading._model import Reference, StrPath

if TYPE_CHECKING:
    from lading._version import Version

Beliefs = Mapping[str, int | None]
"""What a caller believes about aliases: the number of the version that each points at; None for "there is none"."""

NO_BELIEFS: Beliefs = MappingProxyType({})


@runtime_checkable
class SupportsEntries(Protocol):
    """What `Client.put` takes besides paths and mappings: something that lists what a tree is to hold."""

    def entries(self) -> Mapping[str, StrPath | Reference]:
        """Return tree paths, and the local file or the reference that each stands for."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a key belongs to.

    Attributes:
        principal: The name that events and versions have for the caller: `admin`.
        entity: The tenant that the key is for; empty for the operator's.
        role: What the key may do: `viewer`, `member`, `admin` or `operator`; empty where the server asks for no keys.
        key_id: Names the key, and is no secret; empty where the server asks for no keys.
    """

    principal: str
    entity: str
    role: str = ""
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """A workspace inside an entity."""

    entity: str
    name: str
    created_at: datetime


class CollectionKind(Enum):
    """How a collection gets its versions: by commits, or (a registered model) by links."""

    SEQUENCE = "sequence"
    PORTFOLIO = "portfolio"


@dataclass(frozen=True, slots=True)
class Collection:
    """A named, ordered list of versions.

    Attributes:
        entity: The tenant.
        project: The project that it is in.
        name: Its name.
        kind: How it gets its versions.
        type: The type of all its versions: `dataset`, `model`.
        description: Its card, in Markdown.
        tags: Sorted.
        version_count: How many versions it has that were not deleted.
        aliases: Every alias, and the number N of the version `vN` that it points at.
        created_at: When it was made.
        updated_at: When it last changed: a version, an alias, a tag or its card.
        created_by: Who made it.
        deleted_at: When it was deleted; None for what is there.
        purge_at: Until when it can be undeleted; None for what is there.
    """

    entity: str
    project: str
    name: str
    kind: CollectionKind
    type: str
    description: str
    tags: tuple[str, ...]
    version_count: int
    aliases: Mapping[str, int] = field(hash=False)
    created_at: datetime
    updated_at: datetime
    created_by: str
    deleted_at: datetime | None = None
    purge_at: datetime | None = None

    @property
    def reference(self) -> str:
        """How it is written: `entity/project/name`."""
        return f"{self.entity}/{self.project}/{self.name}"


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit came to: the version, and False in `created` when the collection had one of that tree."""

    version: Version
    created: bool


@dataclass(frozen=True, slots=True)
class ChangeAliases:
    """A change for `Client.update_refs`: sets aliases to a version, or removes them from its collection.

    Attributes:
        reference: The version that aliases are set to. Where all are removed, any version of the collection.
        set: Aliases to point at it.
        remove: Aliases that go away.
        expected: What the caller believes about some of them.
    """

    reference: str | Version
    set: Sequence[str] = ()
    remove: Sequence[str] = ()
    expected: Beliefs = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A change for `Client.update_refs`: gives a version a number in a portfolio.

    Attributes:
        reference: The version. Of a link, what it points at is linked.
        target: The portfolio: `[entity/]model-registry/Name`, or its name alone. Made if it is not there.
        aliases: Aliases of the portfolio to set to the link.
        run_id: The run that links it; may be empty.
        expected: What the caller believes about some of the aliases.
    """

    reference: str | Version
    target: str
    aliases: Sequence[str] = ()
    run_id: str = ""
    expected: Beliefs = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Unlink:
    """A change for `Client.update_refs`: removes a version of a portfolio.

    Attributes:
        reference: The link: `model-registry/Name:v3`.
        force: Remove it although aliases other than `latest` point at it.
    """

    reference: str | Version
    force: bool = False


RefChange = ChangeAliases | Link | Unlink


@dataclass(frozen=True, slots=True)
class RefResult:
    """What one change came to.

    Attributes:
        version: The version whose aliases were changed, the link, or the link as it was before it was removed.
        created: Whether a link was made; False when the source had one in that portfolio.
    """

    version: Version
    created: bool


class DeleteOutcome(Enum):
    """What became of a version that matched a query: it was deleted (or would be), or why it was left."""

    DELETED = "deleted"
    HAS_ALIAS = "has_alias"
    HAS_LINK = "has_link"
    PROTECTED = "protected"
    """A protected alias points at it. `Client.delete` deletes it, by name."""
    IS_LINK = "is_link"


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """A version that matched a query, and what became of it.

    Attributes:
        version: The version as it was, without card and metadata.
        outcome: What became of it.
        used_by: What kept it: aliases, or links as `project/collection:vN`; the first ten.
    """

    version: Version
    outcome: DeleteOutcome
    used_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undeleted:
    """A version that is there again, and the links that came back with it."""

    version: Version
    links: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class CollectionProgress:
    """A collection that goes or comes back.

    Attributes:
        collection: As it was before it was deleted, or as it is now that it is back.
        done: Whether all of it is done; where not, the server goes on in the background.
    """

    collection: Collection
    done: bool


@dataclass(frozen=True, slots=True)
class ProjectProgress:
    """A project that goes: as it was, and whether all is done or the server goes on in the background."""

    project: Project
    done: bool


class RunState(Enum):
    """How far a run is. One that stopped beating is crashed; if it beats again it is running again."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One execution, as a call saw it.

    Attributes:
        entity: The tenant.
        project: The project that it is in.
        run_id: Names it in its entity.
        name: What people call it; need not be unique.
        job_type: What it does: `train`, `evaluate`.
        state: How far it is.
        config: What it was started with.
        summary: What it came to; the last value of each metric, unless it was set otherwise.
        created_at: When it was created.
        heartbeat_at: When it was last heard of.
        ended_at: When it ended; None while it runs.
        created_by: Who created it.
    """

    entity: str
    project: str
    run_id: str
    name: str
    job_type: str
    state: RunState
    config: Mapping[str, Any] = field(hash=False)
    summary: Mapping[str, Any] = field(hash=False)
    created_at: datetime
    heartbeat_at: datetime
    ended_at: datetime | None
    created_by: str


@dataclass(frozen=True, slots=True)
class RunDetails(RunInfo):
    """A run with what it measured, used and made: what `Client.run` returns.

    Attributes:
        metric_keys: The keys that it logged metrics for, sorted, at most 1,000.
        inputs: What it used, in the order of first use, at most 1,000.
        outputs: What it logged, in the order of first logging, at most 1,000.
    """

    metric_keys: tuple[str, ...]
    inputs: tuple[Version, ...]
    outputs: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One measurement: the step in the run's own count, the value (may be infinite or NaN), and when it was made."""

    step: int
    value: float
    time: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the registry.

    Attributes:
        revision: Where it stands in the order of all changes of the server. Grows, with gaps.
        time: When.
        actor: Who.
        kind: What: `version.committed`, `alias.set`, …; events.proto lists them.
        project: The project that it is in.
        collection: The collection; empty for what is about a project or a run.
        version_uid: The id of the version; empty for what is about none.
        run_id: The run; empty for what is about none.
        before: What changed, as it was before; None for what was not there.
        after: What changed, as it is after; None for what is not there any more.
        sequence: Its number among the events of its entity: 1, 2, 3, …
        origin: Where the call came from, an address; empty for what the server did by itself.
        chain_hash: What chains it to the event before it, in hexadecimal: see `Client.verify_audit`.
    """

    revision: int
    time: datetime
    actor: str
    kind: str
    project: str
    collection: str
    version_uid: str
    run_id: str
    before: Mapping[str, Any] | None = field(hash=False)
    after: Mapping[str, Any] | None = field(hash=False)
    sequence: int
    origin: str
    chain_hash: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a look at all events of an entity found.

    Attributes:
        ok: Whether they are those that were written: none altered, missing, put in or moved.
        events: How many were found right, from the first on. The look ends at the first that is not.
        first_bad_sequence: The number of the first event that is not right, or not there; None where all are right.
        reason: What is wrong with it; empty where all are right.
        head_sequence: The number of the last event that is right; 0 where there is none.
        head_hash: Its hash, in hexadecimal. Whoever keeps it and its number can tell later that nothing up to it
            was changed, and that no end was cut off.
    """

    ok: bool
    events: int
    first_bad_sequence: int | None
    reason: str
    head_sequence: int
    head_hash: str


class LineageEdgeKind(Enum):
    """What joins two nodes of a lineage."""

    USED = "used"
    LOGGED = "logged"
    LINKED = "linked"


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """Joins a version with a run that used or logged it, or with a link to it.

    Attributes:
        kind: In which way.
        version_uid: The version's id.
        run_id: The run; empty where the kind is LINKED.
        link_uid: The id of the link; empty where the kind is another.
    """

    kind: LineageEdgeKind
    version_uid: str
    run_id: str = ""
    link_uid: str = ""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a version came from and what came from it.

    Attributes:
        root_uid: The id of the version that was asked about: a link's source.
        versions: Every version of the graph, the nearest first.
        runs: Every run of the graph, the nearest first.
        edges: How they hang together.
        truncated: Whether the graph goes on beyond what is here.
    """

    root_uid: str
    versions: tuple[Version, ...]
    runs: tuple[RunInfo, ...]
    edges: tuple[LineageEdge, ...]
    truncated: bool
