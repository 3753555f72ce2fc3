"""What goes into the registry's tables and comes out of them, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading_server.registry.store.schema import CollectionKind, CollectionState, RunState, VersionState

JsonObject = Mapping[str, Any]


class CollectionKey(NamedTuple):
    """A collection, as rows and events name it."""

    id: int
    project: str
    name: str


class CollectionHead(NamedTuple):
    """What has to be known of a collection before it gets a version."""

    key: CollectionKey
    kind: CollectionKind
    type: str


class CollectionRow(NamedTuple):
    """A collection with everything that is told about it. `id` and `entity_id` never leave the service.

    Attributes:
        aliases: Each with the number of the version that it points at, sorted; the first 1,000.
        deleted_at_ms: Of its last deletion, while that can be taken back: it may have been made anew since.
        deletion: What names that deletion; None when there is none to take back.
    """

    id: int
    entity_id: int
    project: str
    name: str
    kind: CollectionKind
    type: str
    description: str
    tags: tuple[str, ...]
    version_count: int
    aliases: tuple[tuple[str, int], ...]
    created_at_ms: int
    updated_at_ms: int
    created_by: str
    state: CollectionState
    deleted_at_ms: int | None
    deletion: int | None

    @property
    def key(self) -> CollectionKey:
        """How rows and events name it."""
        return CollectionKey(self.id, self.project, self.name)


class VersionPoint(NamedTuple):
    """What an alias points at."""

    id: int
    uid: bytes
    number: int


class AliasMove(NamedTuple):
    """An alias that points elsewhere from now on. None is nowhere."""

    alias: str
    before: VersionPoint | None
    after: VersionPoint | None


class RunKey(NamedTuple):
    """A run, as rows and events name it."""

    id: int
    name: str


class VersionRow(NamedTuple):
    """A version with everything that is told about it. A link has card and metadata of its source.

    It is live, but where versions that were deleted are asked for. `deletion` names what it was deleted with. `id`,
    `entity_id`, `collection_id` and `source_id` are numbers of rows and never leave the service.
    """

    id: int
    uid: bytes
    entity_id: int
    collection_id: int
    project: str
    collection: str
    kind: CollectionKind
    type: str
    number: int
    tree_digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int
    description: str
    metadata: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    created_at_ms: int
    created_by: str
    run: str
    source_id: int | None
    source_uid: bytes | None
    # `project/collection:vN`, or empty.
    source: str
    # Nothing for never; a link has no time of its own.
    expires_at_ms: int | None
    state: VersionState
    deleted_at_ms: int | None
    deletion: int | None

    @property
    def name(self) -> str:
        """`project/collection:vN`."""
        return f"{self.project}/{self.collection}:v{self.number}"

    @property
    def collection_key(self) -> CollectionKey:
        """The collection, as rows and events name it."""
        return CollectionKey(self.collection_id, self.project, self.collection)

    @property
    def point(self) -> VersionPoint:
        """This version, as an alias points at it."""
        return VersionPoint(self.id, self.uid, self.number)


class Metadata(NamedTuple):
    """A JSON object, as the text that is kept, as what it says, and as what of it can be searched, by dotted key."""

    text: str = "{}"
    value: JsonObject = MappingProxyType({})
    fields: Mapping[str, float | str] = MappingProxyType({})


class AliasRule(NamedTuple):
    """Who may set, move and remove an alias, and to what it may point.

    Attributes:
        collection: Empty for all of the project.
        is_protected: Only admins may.
        required_tags: Tags that a version must have. Sorted.
        required_metadata: Keys of its metadata, with dots for what is nested, that it must have. Sorted.
    """

    project: str
    collection: str
    alias: str
    is_protected: bool = False
    required_tags: tuple[str, ...] = ()
    required_metadata: tuple[str, ...] = ()


class Qualities(NamedTuple):
    """What rules may require of a version. Of a link its own tags and its source's, and its source's metadata."""

    tags: frozenset[str]
    metadata: JsonObject


class Expiry(NamedTuple):
    """When a version shall go by itself; None is never. Itself None where it is left as it is."""

    at_ms: int | None


class RetentionRule(NamedTuple):
    """Which versions of a collection stay: those that one of the parts keeps. A part that is 0 or empty is none.

    Attributes:
        collection: Empty for each collection of the project that has no rule of its own.
        keep_last: So many with the highest numbers.
        keep_best: So many of the best by `best_key`.
        best_key: A key of metadata, with dots for what is nested.
        best_is_smallest: Whether the smallest are the best.
        keep_days: Those that were committed less than so many days ago.
        keep_tags: Those with one of these tags. Sorted.
        keep_all: Every one.
        default_ttl_seconds: The time to live of new versions that bring none; 0 for none.
    """

    project: str
    collection: str
    keep_last: int = 0
    keep_best: int = 0
    best_key: str = ""
    best_is_smallest: bool = False
    keep_days: int = 0
    keep_tags: tuple[str, ...] = ()
    keep_all: bool = False
    default_ttl_seconds: int = 0
    set_at_ms: int = 0
    set_by: str = ""

    @property
    def is_about(self) -> tuple[str, str]:
        """Where it counts: a project and a collection."""
        return self.project, self.collection


class RetentionFacts(NamedTuple):
    """What decides whether a live version stays. `id` never leaves the service.

    Attributes:
        value: The number at the rule's key of its metadata; None where there is none.
        tag: One of the rule's tags that it has; empty for none.
        alias: An alias other than `latest` that points at it; empty for none.
        is_linked: Whether a live link points at it.
    """

    id: int
    uid: bytes
    number: int
    size_bytes: int
    created_at_ms: int
    expires_at_ms: int | None
    value: float | None = None
    tag: str = ""
    alias: str = ""
    is_linked: bool = False


class Ranks(NamedTuple):
    """Where the last N and the best K of a collection end. None where fewer count, and so all of them are among them.

    Attributes:
        last_number: The lowest number of the last N.
        best: The worst of the best K: its value, or None, and its number.
    """

    last_number: int | None = None
    best: tuple[float | None, int] | None = None


class NewVersion(NamedTuple):
    """A version that is about to get its number.

    Attributes:
        source: What a link points at: never a link itself. A link has neither description nor metadata of its own.
    """

    uid: bytes
    tree_digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int
    description: str = ""
    metadata: Metadata = Metadata()
    tags: tuple[str, ...] = ()
    run: RunKey | None = None
    source: VersionRow | None = None
    expires_at_ms: int | None = None


class PendingCommit(NamedTuple):
    """A commit whose version has no number yet. `request` is the whole request, as JSON."""

    uid: bytes
    entity: str
    request: str


class PinRelease(NamedTuple):
    """A pin that ingest has not yet said to be released."""

    uid: bytes
    entity: str


class ProjectRow(NamedTuple):
    """A project."""

    name: str
    created_at_ms: int


class EventRow(NamedTuple):
    """One change, with the columns of its table. `before` and `after` are JSON, or empty."""

    revision: int
    time_ms: int
    actor: str
    kind: str
    project: str
    collection: str
    version_uid: bytes | None
    run: str
    before: str
    after: str
    origin: str
    sequence: int
    chain_hash: bytes


class EventFilter(NamedTuple):
    """Which events are wanted. What is empty or None is no condition."""

    after_revision: int
    up_to_revision: int
    newest_first: bool
    project: str
    collection: str
    version_uid: bytes | None


class RunRow(NamedTuple):
    """A run. `id` and `entity_id` are numbers of rows and never leave the service.

    `run` is what callers call `run_id`, `name` what people call it. `summary` holds what callers set and no metrics.
    """

    id: int
    entity_id: int
    project: str
    run: str
    name: str
    job_type: str
    state: RunState
    config: str
    summary: str
    created_at_ms: int
    heartbeat_at_ms: int
    ended_at_ms: int | None
    created_by: str
