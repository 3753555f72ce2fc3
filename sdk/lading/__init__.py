"""The async SDK of Lading: stores and fetches data sets, checkpoints and models.

    async with lading.IngestClient("127.0.0.1:7420", entity="acme") as client:
        result = await client.upload_tree("dataset/")
        await client.download_tree(result.tree.digest, "copy/")

Importing it opens nothing and starts no thread. Everything public is here; modules that begin with `_` are not.
"""

from lading._client import IngestClient
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
    OutcomeUnknown,
    PermissionDenied,
    ResourceExhausted,
    SessionExpired,
    Unauthenticated,
    Unavailable,
    UnsafePath,
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
)
from lading._progress import Progress, ProgressCallback
from lading._retry import RetryPolicy

__all__ = [
    "AlreadyExists",
    "BlobInfo",
    "Busy",
    "Capabilities",
    "ChangeKind",
    "Conflict",
    "ContentMoved",
    "DownloadResult",
    "EntryKind",
    "FailedPrecondition",
    "FileChanged",
    "FileInfo",
    "Incompatible",
    "IngestClient",
    "IntegrityError",
    "InvalidArgument",
    "LadingError",
    "ListedEntry",
    "MissingContent",
    "NotFound",
    "OutcomeUnknown",
    "PathChange",
    "PermissionDenied",
    "Progress",
    "ProgressCallback",
    "Reference",
    "ResourceExhausted",
    "RetryPolicy",
    "SessionExpired",
    "TreeInfo",
    "Unauthenticated",
    "Unavailable",
    "UnsafePath",
    "UploadResult",
]
