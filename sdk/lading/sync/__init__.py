"""The same names for code without an event loop: a plain training loop, a notebook, a script.

    with lading.sync.init(project="digits", job_type="train", config={"lr": 0.1}) as run:
        data = run.use_artifact("digits:latest", type="dataset").download()
        for epoch in range(10):
            ...
            run.log({"loss": loss})
            run.log_artifact("model.safetensors", "digits-mlp", type="model")  # in the background; training goes on

Everything asynchronous goes on in one thread of each process, which starts at first use. What is a generator there is
an iterator here, and what is only a value is the same on both sides.

A process that was forked starts a thread of its own, and cannot use what its parent made here. gRPC itself does not
survive a fork while it is connected: where the parent has a run or a client open, the child is told so by
FailedPrecondition, instead of hanging. DataLoader workers, which only read files, are not concerned. But import lading
before anything else that imports grpc (TensorBoard does), or set GRPC_ENABLE_FORK_SUPPORT=0: see lading._grpc.
"""

from lading._artifact import Artifact
from lading._cache.local import CacheCheck, CacheInfo, CachePruned, LocalCache
from lading._check_models import CheckFinding, CheckProgress, CheckSummary, FindingKind, HurtVersion
from lading._errors import (
    AlreadyExists,
    Busy,
    Conflict,
    ContentMoved,
    FailedPrecondition,
    FileChanged,
    Incompatible,
    IntegrityError,
    InvalidArgument,
    LadingError,
    MissingContent,
    NotFound,
    NotLogged,
    OutcomeUnknown,
    PermissionDenied,
    ResourceExhausted,
    SessionExpired,
    Unauthenticated,
    Unavailable,
    UnsafePath,
    Untrusted,
)
from lading._maintenance.models import (
    ContentState,
    EntityCollection,
    Explanation,
    GarbageExample,
    GarbageOutcome,
    GarbageProgress,
    GarbageReport,
    GarbageStep,
    HoldingPack,
    KeepingVersion,
    LastCollection,
    LostVersion,
    Reconciliation,
)
from lading._model import (
    BlobInfo,
    Capabilities,
    ChangeKind,
    DownloadResult,
    EntryKind,
    FileInfo,
    ListedEntry,
    PathChange,
    Reference,
    TreeInfo,
    UploadResult,
    Usage,
)
from lading._progress import Progress, ProgressCallback
from lading._registry.access_models import AliasRule, EntityInfo, Key, Limits, Member, MemberKind, NewKey, Role
from lading._registry.models import (
    AuditReport,
    Collection,
    CollectionKind,
    CollectionProgress,
    DeleteOutcome,
    Event,
    Identity,
    LineageEdge,
    LineageEdgeKind,
    MetricPoint,
    Project,
    ProjectProgress,
    RunInfo,
    RunState,
    SupportsEntries,
)
from lading._registry.retention_models import BestOrder, RetentionApplied, RetentionRule, RetentionVerdict
from lading._retry import RetryPolicy
from lading._verify import VerifyResult
from lading.sync._client import Client
from lading.sync._items import Items
from lading.sync._models import (
    ChangeAliases,
    Committed,
    DeleteResult,
    Lineage,
    Link,
    RefResult,
    RunDetails,
    Undeleted,
    Unlink,
)
from lading.sync._remote_file import RemoteFile
from lading.sync._run import LoggedArtifact, Run, init
from lading.sync._version import Version

__all__ = [
    "AliasRule",
    "AlreadyExists",
    "Artifact",
    "AuditReport",
    "BestOrder",
    "BlobInfo",
    "Busy",
    "CacheCheck",
    "CacheInfo",
    "CachePruned",
    "Capabilities",
    "ChangeAliases",
    "ChangeKind",
    "CheckFinding",
    "CheckProgress",
    "CheckSummary",
    "Client",
    "Collection",
    "CollectionKind",
    "CollectionProgress",
    "Committed",
    "Conflict",
    "ContentMoved",
    "ContentState",
    "DeleteOutcome",
    "DeleteResult",
    "DownloadResult",
    "EntityCollection",
    "EntityInfo",
    "EntryKind",
    "Event",
    "Explanation",
    "FailedPrecondition",
    "FileChanged",
    "FileInfo",
    "FindingKind",
    "GarbageExample",
    "GarbageOutcome",
    "GarbageProgress",
    "GarbageReport",
    "GarbageStep",
    "HoldingPack",
    "HurtVersion",
    "Identity",
    "Incompatible",
    "IntegrityError",
    "InvalidArgument",
    "Items",
    "KeepingVersion",
    "Key",
    "LadingError",
    "LastCollection",
    "Limits",
    "Lineage",
    "LineageEdge",
    "LineageEdgeKind",
    "Link",
    "ListedEntry",
    "LocalCache",
    "LoggedArtifact",
    "LostVersion",
    "Member",
    "MemberKind",
    "MetricPoint",
    "MissingContent",
    "NewKey",
    "NotFound",
    "NotLogged",
    "OutcomeUnknown",
    "PathChange",
    "PermissionDenied",
    "Progress",
    "ProgressCallback",
    "Project",
    "ProjectProgress",
    "Reconciliation",
    "RefResult",
    "Reference",
    "RemoteFile",
    "ResourceExhausted",
    "RetentionApplied",
    "RetentionRule",
    "RetentionVerdict",
    "RetryPolicy",
    "Role",
    "Run",
    "RunDetails",
    "RunInfo",
    "RunState",
    "SessionExpired",
    "SupportsEntries",
    "TreeInfo",
    "Unauthenticated",
    "Unavailable",
    "Undeleted",
    "Unlink",
    "UnsafePath",
    "Untrusted",
    "UploadResult",
    "Usage",
    "VerifyResult",
    "Version",
    "init",
]
