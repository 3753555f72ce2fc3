"""What can go wrong with names: see `errors` for what both services share and for content. Knows no gRPC."""

from __future__ import annotations

from lading_server.common.errors import DomainError


class InvalidPin(DomainError):
    """The id of a version is not 16 bytes long."""

    reason = "INVALID_PIN"


class PinConflict(DomainError):
    """A version's pin is on another tree."""

    reason = "PIN_CONFLICT"


class PinReleased(DomainError):
    """A version's pin was released and cannot be had again."""

    reason = "PIN_RELEASED"


class IngestUnavailable(DomainError):
    """The registry cannot reach ingest."""

    reason = "INGEST_UNAVAILABLE"


class RegistryUnavailable(DomainError):
    """Ingest cannot reach the registry."""

    reason = "REGISTRY_UNAVAILABLE"


class NoRegistry(DomainError):
    """Ingest was not told where the registry is, and is asked for what needs it."""

    reason = "NO_REGISTRY"


class RequestIdReused(DomainError):
    """A request id was used for another call."""

    reason = "REQUEST_ID_REUSED"


class InvalidMetadata(DomainError):
    """Metadata, config or summary is not a JSON object, or too large, or too deep. Metadata: `field`."""

    reason = "INVALID_METADATA"


class TextTooLong(DomainError):
    """A card is longer than the limit. Metadata: `limit`."""

    reason = "TEXT_TOO_LONG"


class InvalidQuery(DomainError):
    """A query or an order cannot be read. Metadata: `position`, from 0."""

    reason = "INVALID_QUERY"


class InvalidMetric(DomainError):
    """A metric's key or step breaks its rules. Metadata: `key`."""

    reason = "INVALID_METRIC"


class InvalidState(DomainError):
    """A run cannot be given this state."""

    reason = "INVALID_STATE"


class CollectionNotFound(DomainError):
    """The entity has no such collection. Metadata: `project`, `collection`."""

    reason = "COLLECTION_NOT_FOUND"


class CollectionExists(DomainError):
    """There is a collection of this name. Metadata: `project`, `collection`."""

    reason = "COLLECTION_EXISTS"


class VersionNotFound(DomainError):
    """The collection has no such version or alias. Metadata: `reference`."""

    reason = "VERSION_NOT_FOUND"


class AliasNotFound(DomainError):
    """An alias that should be removed is not there. Metadata: `alias`."""

    reason = "ALIAS_NOT_FOUND"


class AliasMoved(DomainError):
    """A belief about an alias is wrong. Metadata: `alias`, `actual` (`vN`, or `none`)."""

    reason = "ALIAS_MOVED"


class TypeMismatch(DomainError):
    """A collection has another type. Metadata: `expected`, `actual`."""

    reason = "TYPE_MISMATCH"


class WrongKind(DomainError):
    """What is asked for does not go with sequences, or with portfolios and their links."""

    reason = "WRONG_KIND"


class VersionInUse(DomainError):
    """Aliases or links point at a version. Metadata: `aliases`, `links`, comma-separated, the first few."""

    reason = "VERSION_IN_USE"


class CollectionInUse(DomainError):
    """Aliases or links from elsewhere point into a collection. Metadata: `aliases`, `links`, the first few."""

    reason = "COLLECTION_IN_USE"


class CollectionDeleting(DomainError):
    """A collection, or its project, is being deleted at this moment. Metadata: `project`, `collection`."""

    reason = "COLLECTION_DELETING"


class SourceDeleted(DomainError):
    """A link cannot come back, for what it points at is deleted. Metadata: `source`."""

    reason = "SOURCE_DELETED"


class ProjectNotFound(DomainError):
    """The entity has no such project. Metadata: `project`."""

    reason = "PROJECT_NOT_FOUND"


class ProjectNotEmpty(DomainError):
    """A project has collections. Metadata: `collections`, comma-separated, the first few."""

    reason = "PROJECT_NOT_EMPTY"


class RunNotFound(DomainError):
    """The entity has no such run. Metadata: `run_id`."""

    reason = "RUN_NOT_FOUND"


class RunExists(DomainError):
    """A run of this id is in another project. Metadata: `project`."""

    reason = "RUN_EXISTS"


class RunEnded(DomainError):
    """A run was ended in another way before. Metadata: `state`."""

    reason = "RUN_ENDED"


class KeyMissing(DomainError):
    """The call carries no key."""

    reason = "KEY_MISSING"


class KeyInvalid(DomainError):
    """The key is unknown, expired or revoked."""

    reason = "KEY_INVALID"


class EntityDenied(DomainError):
    """The key is not for this entity."""

    reason = "ENTITY_DENIED"


class KeysUnavailable(DomainError):
    """Ingest cannot reach the registry, which knows the keys."""

    reason = "KEYS_UNAVAILABLE"


class RoleDenied(DomainError):
    """The key's role does not allow the call. Metadata: `required`, `role`."""

    reason = "ROLE_DENIED"


class EntityExists(DomainError):
    """There is an entity of this name."""

    reason = "ENTITY_EXISTS"


class EntityNotFound(DomainError):
    """There is no such entity. Told to operators alone."""

    reason = "ENTITY_NOT_FOUND"


class MemberNotFound(DomainError):
    """The entity has no such member. Metadata: `member`."""

    reason = "MEMBER_NOT_FOUND"


class LastAdmin(DomainError):
    """The entity would be left without an admin."""

    reason = "LAST_ADMIN"


class KeyNotFound(DomainError):
    """The entity has no such key. Metadata: `key_id`."""

    reason = "KEY_NOT_FOUND"


class AliasProtected(DomainError):
    """Only admins may set, move or remove the alias. Metadata: `alias`."""

    reason = "ALIAS_PROTECTED"


class AliasRequires(DomainError):
    """The alias may not point at the version: tags or metadata are missing. Metadata: `alias`, `tags`, `metadata`."""

    reason = "ALIAS_REQUIRES"


class InvalidRetentionRule(DomainError):
    """A rule of retention keeps nothing, or its parts do not go together. Metadata: `field`."""

    reason = "INVALID_RETENTION_RULE"


class QuotaExceeded(DomainError):
    """The entity would store more than it may. Metadata: `limit_bytes`, `stored_bytes`."""

    reason = "QUOTA_EXCEEDED"


class RateLimited(DomainError):
    """A key or an entity calls more often than it may. Metadata: `scope`, `limit`, `retry_seconds`."""

    reason = "RATE_LIMITED"

    def __init__(self, message: str, scope: str, limit: int, retry_seconds: float) -> None:
        super().__init__(message, scope=scope, limit=limit, retry_seconds=f"{retry_seconds:.3f}")
        self.retry_seconds = retry_seconds
