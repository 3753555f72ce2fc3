"""What goes into the registry's tables and comes out of them, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading_server.registry.store.schema import CollectionKind, RunState

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
    """A live version with everything that is told about it. A link has card and metadata of its source.

    `id`, `entity_id`, `collection_id` and `source_id` are numbers of rows and never leave the service.
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
