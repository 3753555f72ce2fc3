"""Roles, and the one table that says who may call what. Pure.

Every rpc that a server answers stands in `WHO_MAY_CALL`, health and reflection too; one that does not is refused. The
interceptor asks the table before a handler sees a call, so no handler has to.
tests/integration/test_role_matrix.py holds it against what real servers serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from lading_server.common.registry_errors import RoleDenied


class Role(StrEnum):
    """What a caller may do. Viewer, member and admin are roles in an entity, each with all that those before it may."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    # Apart: makes entities and sets their limits, and sees nothing that is inside one.
    OPERATOR = "operator"

    def includes(self, other: Role) -> bool:
        """Tell whether whoever has this role may do all that the other one may."""
        if Role.OPERATOR in (self, other):
            return self is other
        return ENTITY_ROLES.index(self) >= ENTITY_ROLES.index(other)


ENTITY_ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN)
"""What a member can be, the least first."""


def lesser(one: Role, other: Role) -> Role:
    """Return which of two roles in an entity allows less."""
    return min(one, other, key=ENTITY_ROLES.index)


class Required(StrEnum):
    """Who may call an rpc, as `required` of ROLE_DENIED says it."""

    # Also without a key.
    ANYBODY = "anybody"
    # Whoever has a key, the operator too.
    KEY = "key"
    # Whoever has this role or one that includes it.
    VIEWER = Role.VIEWER.value
    MEMBER = Role.MEMBER.value
    ADMIN = Role.ADMIN.value
    OPERATOR = Role.OPERATOR.value
    # The other one of the two services, with the service key.
    SERVICE = "service"

    def allows(self, role: Role) -> bool:
        """Tell whether a key of this role may call."""
        if self is Required.SERVICE:
            return False
        return self in (Required.ANYBODY, Required.KEY) or role.includes(Role(self.value))


def _of(service: str, required: Required, *methods: str) -> dict[str, Required]:
    return {f"/{service}/{method}": required for method in methods}


_INGEST = "lading.ingest.v1.IngestService"
_PINS = "lading.ingest.v1.PinService"
_CHECKS = "lading.ingest.v1.CheckService"
_REGISTRY = "lading.registry.v1.RegistryService"
_ACCESS = "lading.registry.v1.AccessService"
_KEYS = "lading.registry.v1.KeyService"
_RETENTION = "lading.registry.v1.RetentionService"
_KEPT = "lading.registry.v1.KeptVersionService"
_MAINTENANCE = "lading.ingest.v1.MaintenanceService"

WHO_MAY_CALL: Mapping[str, Required] = MappingProxyType(
    _of("grpc.health.v1.Health", Required.ANYBODY, "Check", "List", "Watch")
    | _of("grpc.reflection.v1alpha.ServerReflection", Required.ANYBODY, "ServerReflectionInfo")
    # Content.
    | _of(
        _INGEST,
        Required.VIEWER,
        *("GetCapabilities", "GetUsage", "GetTree", "ListTree", "DiffTrees", "StatBlobs", "ReadBlobs", "ReadFile"),
    )
    | _of(
        _INGEST,
        Required.MEMBER,
        *("OpenSession", "CloseSession", "FindMissingChunks", "PutChunks", "CommitBlobs", "PutTree"),
        *("UploadFile", "GetUpload"),
    )
    | _of(_PINS, Required.SERVICE, "AcquirePin", "ReleasePin", "ListPins")
    | _of(_CHECKS, Required.OPERATOR, "CheckStore")
    # Names.
    | _of(_REGISTRY, Required.ANYBODY, "GetServerInfo")
    | _of(_REGISTRY, Required.KEY, "WhoAmI")
    | _of(
        _REGISTRY,
        Required.VIEWER,
        *("ListProjects", "GetCollection", "ListCollections", "GetVersion", "ListVersions", "SearchVersions"),
        *("GetLineage", "GetRun", "ListRuns", "GetMetrics", "ListEvents"),
    )
    | _of(
        _REGISTRY,
        Required.MEMBER,
        *("CreateCollection", "UpdateCollection", "CommitVersion", "UpdateVersion", "UpdateRefs"),
        *("CreateRun", "UpdateRun", "Heartbeat", "FinishRun", "LogMetrics", "UseVersion"),
    )
    | _of(
        _REGISTRY,
        Required.ADMIN,
        *("DeleteVersion", "UndeleteVersion", "DeleteVersions", "DeleteCollection", "UndeleteCollection"),
        "DeleteProject",
    )
    # Access.
    | _of(_ACCESS, Required.OPERATOR, "CreateEntity", "ListEntities", "SetLimits")
    | _of(_ACCESS, Required.VIEWER, "ListAliasRules")
    # Of keys, whoever is no admin has to do with its own alone: registry/domain/issued_keys.py.
    | _of(_ACCESS, Required.MEMBER, "CreateKey", "RevokeKey", "ListKeys")
    | _of(
        _ACCESS,
        Required.ADMIN,
        *("AddMember", "RemoveMember", "ListMembers", "SetAliasRule", "DeleteAliasRule"),
    )
    | _of(_KEYS, Required.SERVICE, "CheckKey")
    # Retention.
    | _of(_RETENTION, Required.VIEWER, "GetRetentionRule", "ListRetentionRules", "SimulateRetention")
    | _of(_RETENTION, Required.ADMIN, "SetRetentionRule", "DeleteRetentionRule", "ApplyRetention")
    # Maintenance.
    | _of(_KEPT, Required.SERVICE, "ListKeptEntities", "ListKeptVersions", "GetExpectedVersions")
    | _of(_MAINTENANCE, Required.VIEWER, "ExplainContent")
    | _of(_MAINTENANCE, Required.OPERATOR, "CollectGarbage", "GetLastCollection")
)
"""Who may call each rpc, by its full name `/package.Service/Method`."""


READS_OF_CONTENT = frozenset(
    f"/{_INGEST}/{method}"
    for method in ("GetCapabilities", "GetTree", "ListTree", "DiffTrees", "StatBlobs", "ReadBlobs", "ReadFile")
)
"""What goes on for a while, with keys that were good, when the registry does not answer. Changes nothing."""


def required_for(method: str) -> Required:
    """Return who may call an rpc. Raises RoleDenied when it has no entry."""
    required = WHO_MAY_CALL.get(method)
    if required is None:
        raise RoleDenied(f"nobody may call {method}: it is not in the table of roles; use a newer server", required="")
    return required


def check_role(method: str, role: Role) -> None:
    """Raise RoleDenied unless a key of this role may call an rpc."""
    required = required_for(method)
    if not required.allows(role):
        name = method.rpartition("/")[2]
        raise RoleDenied(
            f"{name} is for the role {required}, and the key has the role {role}; ask for one that may",
            required=required.value,
            role=role.value,
        )
