"""The values that hold versions, with those of this package in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import lading._registry.models as native
from lading._registry.models import Beliefs, DeleteOutcome, LineageEdge, RunInfo
from lading.sync._version import Version, native_of


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit came to. See `lading.Committed`."""

    version: Version
    created: bool

    @classmethod
    def of(cls, committed: native.Committed) -> Committed:
        """Return the same for code without an event loop."""
        return cls(Version.of(committed.version), committed.created)


@dataclass(frozen=True, slots=True)
class ChangeAliases:
    """A change for `Client.update_refs`. See `lading.ChangeAliases`."""

    reference: str | Version
    set: Sequence[str] = ()
    remove: Sequence[str] = ()
    expected: Beliefs = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A change for `Client.update_refs`. See `lading.Link`."""

    reference: str | Version
    target: str
    aliases: Sequence[str] = ()
    run_id: str = ""
    expected: Beliefs = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Unlink:
    """A change for `Client.update_refs`. See `lading.Unlink`."""

    reference: str | Version
    force: bool = False


RefChange = ChangeAliases | Link | Unlink


def native_change(change: RefChange) -> native.RefChange:
    """Return what the asynchronous side takes for a change."""
    reference = native_of(change.reference)
    if isinstance(change, ChangeAliases):
        return native.ChangeAliases(reference, change.set, change.remove, change.expected)
    if isinstance(change, Link):
        return native.Link(reference, change.target, change.aliases, change.run_id, change.expected)
    return native.Unlink(reference, change.force)


@dataclass(frozen=True, slots=True)
class RefResult:
    """What one change came to. See `lading.RefResult`."""

    version: Version
    created: bool

    @classmethod
    def of(cls, result: native.RefResult) -> RefResult:
        """Return the same for code without an event loop."""
        return cls(Version.of(result.version), result.created)


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """A version that matched a query, and what became of it. See `lading.DeleteResult`."""

    version: Version
    outcome: DeleteOutcome
    used_by: tuple[str, ...]

    @classmethod
    def of(cls, result: native.DeleteResult) -> DeleteResult:
        """Return the same for code without an event loop."""
        return cls(Version.of(result.version), result.outcome, result.used_by)


@dataclass(frozen=True, slots=True)
class Undeleted:
    """A version that is there again, and the links that came back with it. See `lading.Undeleted`."""

    version: Version
    links: tuple[Version, ...]

    @classmethod
    def of(cls, undeleted: native.Undeleted) -> Undeleted:
        """Return the same for code without an event loop."""
        return cls(Version.of(undeleted.version), tuple(Version.of(link) for link in undeleted.links))


@dataclass(frozen=True, slots=True)
class RunDetails(RunInfo):
    """A run with what it measured, used and made. See `lading.RunDetails`."""

    metric_keys: tuple[str, ...]
    inputs: tuple[Version, ...]
    outputs: tuple[Version, ...]

    @classmethod
    def of(cls, details: native.RunDetails) -> RunDetails:
        """Return the same for code without an event loop."""
        return cls(
            **{item.name: getattr(details, item.name) for item in fields(RunInfo)},
            metric_keys=details.metric_keys,
            inputs=tuple(Version.of(version) for version in details.inputs),
            outputs=tuple(Version.of(version) for version in details.outputs),
        )


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a version came from and what came from it. See `lading.Lineage`."""

    root_uid: str
    versions: tuple[Version, ...]
    runs: tuple[RunInfo, ...]
    edges: tuple[LineageEdge, ...]
    truncated: bool

    @classmethod
    def of(cls, lineage: native.Lineage) -> Lineage:
        """Return the same for code without an event loop."""
        versions = tuple(Version.of(version) for version in lineage.versions)
        return cls(lineage.root_uid, versions, lineage.runs, lineage.edges, lineage.truncated)
