"""Content in and out, by digest: what both clients are made of. Knows no names; those are the registry's."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType

from lading._digest_cache import DigestCache
from lading._download.run import download
from lading._errors import Incompatible, InvalidArgument
from lading._limits import Limits
from lading._listing import change_pages, tree_pages
from lading._model import (
    BlobInfo,
    Capabilities,
    DownloadResult,
    FileInfo,
    ListedEntry,
    PathChange,
    Reference,
    StrPath,
    TreeInfo,
    UploadResult,
    Usage,
)
from lading._progress import ProgressCallback, ProgressMeter
from lading._retry import RetryPolicy
from lading._scan import scan_directory, scan_mapping
from lading._simple import FileUpload, read_file
from lading._transport import Transport
from lading._upload.run import upload
from lading._upload.tree import tree_info
from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, files_pb2, trees_pb2, usage_pb2


class Content:
    """Stores and fetches one entity's content: trees of files, and single files, named by their digests.

    Every method repeats calls that failed for a passing reason, and raises Unavailable (or OutcomeUnknown, or Busy)
    when there was no progress for as long as the policy says.
    """

    def __init__(
        self, transport: Transport, entity: str, policy: RetryPolicy, digests: DigestCache | None = None
    ) -> None:
        """Use a transport.

        Args:
            transport: Whoever made it closes it.
            entity: The tenant whose content this is about.
            policy: When to try again, and when to give up.
            digests: What is known of files that were read before; None to read every file.
        """
        self._transport = transport
        self._entity = entity
        self._policy = policy
        self._digests = digests
        self._limits: Limits | None = None

    async def get_capabilities(self) -> Capabilities:
        """Return what the server is, and its limits.

        Raises:
            Incompatible: The server names content in a way that this SDK does not know.

        Source: IngestService.GetCapabilities in protos/lading_proto/ingest/v1/ingest.proto.
        """
        request = capabilities_pb2.GetCapabilitiesRequest(entity=self._entity)
        response = await self._policy.call(
            lambda: self._transport.call(self._transport.control.GetCapabilities, request)
        )
        if response.digest_function != capabilities_pb2.DIGEST_FUNCTION_BLAKE3_256:
            raise Incompatible(f"{self._transport.target} does not name content by BLAKE3-256. Use a newer SDK.")
        limits = MappingProxyType({limit.name: limit.value for limit in response.limits})
        self._limits = Limits.of(limits)
        return Capabilities(response.server_version, limits)

    async def usage(self) -> Usage:
        """Return how much the entity stores, and how much it may.

        Source: IngestService.GetUsage in protos/lading_proto/ingest/v1/ingest.proto.
        """
        request = usage_pb2.GetUsageRequest(entity=self._entity)
        response = await self._policy.call(lambda: self._transport.call(self._transport.control.GetUsage, request))
        return Usage(response.used_bytes, response.limit_bytes or None)

    async def upload_tree(
        self,
        source: StrPath | Mapping[str, StrPath | Reference],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_progress: ProgressCallback | None = None,
        recheck: bool = False,
    ) -> UploadResult:
        """Store files as a tree, and return it. Sends only what the entity does not have.

        Each file is read once. To resume an upload that was interrupted is to call this again.

        Args:
            source: A directory, whose files get their paths below it; or a mapping of tree paths to local files and
                References.
            include: Of a directory, only files that match one of these patterns, or are below a directory that does.
                `*` and `?` stop at `/`, `**` does not; a pattern without `/` matches a name at any depth.
            exclude: Of a directory, nothing that matches one of these patterns.
            on_progress: Called ten times a second at most, and at the end. What it raises ends the upload.
            recheck: Ask for every file, even where the entity has the tree: for when some of it turned out to be
                missing.

        Raises:
            InvalidArgument: A name cannot be a path of a tree, or the source is not what it should be.
            UnsafePath: The directory holds a link, a pipe, a socket or a device that `exclude` does not leave out.
            FileChanged: A file changed while it was read.
            ResourceExhausted: The store has too little free space.
            OSError: A file cannot be read.

        Source: IngestService.FindMissingChunks and the calls after it in protos/lading_proto/ingest/v1/ingest.proto.
        """
        limits = await self._known_limits()
        if isinstance(source, Mapping):
            if include or exclude:
                raise InvalidArgument("include and exclude are for directories; leave them out with a mapping.")
            found = await asyncio.to_thread(scan_mapping, source)
        else:
            found = await asyncio.to_thread(scan_directory, source, include=include, exclude=exclude)
        return await upload(
            self._transport, self._entity, limits, self._policy, found, on_progress, self._digests, recheck
        )

    async def download_tree(
        self, digest: str, root: StrPath, *, prefix: str = "", on_progress: ProgressCallback | None = None
    ) -> DownloadResult:
        """Write a tree's files below `root`, and return what was done.

        Files that are already there with the right content are left alone; an interrupted download continues from
        what is in `root/.lading-partial`. Every file is verified against its digest before it gets its name, and
        the listing against the tree's digest before anything is written. With a `prefix` each file is verified,
        but that the listing has all of them, and only them, is the server's word. References are not fetched.

        Args:
            digest: The tree, `b3:<64 hex>`.
            root: Directory to write to; created if missing.
            prefix: Only paths that begin with it: `images/` for a directory.
            on_progress: Called ten times a second at most, and at the end. What it raises ends the download.

        Raises:
            NotFound: The entity has no such tree.
            IntegrityError: The server sent something else than what the digest stands for. It was not kept.
            UnsafePath: The tree has a path that cannot be written safely, or a link is in the way below `root`.
            AlreadyExists: A directory is where a file should be, or the other way round.
            OSError: A file cannot be written.

        Source: IngestService.ListTree and ReadBlobs in protos/lading_proto/ingest/v1/ingest.proto.
        """
        limits = await self._known_limits()
        return await download(self._transport, self._entity, limits, self._policy, digest, root, prefix, on_progress)

    async def list_tree(
        self, digest: str, *, prefix: str = "", fold_directories: bool = False
    ) -> AsyncGenerator[ListedEntry, None]:
        """Yield a tree's entries, sorted by the bytes of their paths.

        Args:
            digest: The tree, `b3:<64 hex>`.
            prefix: Only paths that begin with it.
            fold_directories: Yield each directory of this level as one entry, instead of what is below it.

        Raises:
            NotFound: The entity has no such tree.

        Source: IngestService.ListTree in protos/lading_proto/ingest/v1/ingest.proto.
        """
        request = trees_pb2.ListTreeRequest(
            entity=self._entity, tree_digest=digest, prefix=prefix, fold_directories=fold_directories
        )
        async with contextlib.aclosing(tree_pages(self._transport, self._policy, request)) as pages:
            async for page in pages:
                for entry in page:
                    yield entry

    async def diff_trees(self, base: str, target: str) -> AsyncGenerator[PathChange, None]:
        """Yield the paths that differ between two trees, sorted.

        Args:
            base: The tree before, `b3:<64 hex>`.
            target: The tree after.

        Raises:
            NotFound: The entity has no such tree; the message says which.

        Source: IngestService.DiffTrees in protos/lading_proto/ingest/v1/ingest.proto.
        """
        request = trees_pb2.DiffTreesRequest(entity=self._entity, base_digest=base, target_digest=target)
        async with contextlib.aclosing(change_pages(self._transport, self._policy, request)) as pages:
            async for page in pages:
                for change in page:
                    yield change

    async def get_tree(self, digest: str) -> TreeInfo:
        """Return a tree's totals.

        Raises:
            NotFound: The entity has no such tree.

        Source: IngestService.GetTree in protos/lading_proto/ingest/v1/ingest.proto.
        """
        request = trees_pb2.GetTreeRequest(entity=self._entity, tree_digest=digest)
        response = await self._policy.call(lambda: self._transport.call(self._transport.control.GetTree, request))
        return tree_info(response.tree)

    async def stat_blobs(self, digests: Sequence[str]) -> dict[str, BlobInfo | None]:
        """Return what is known of files by digest; None for those that the entity does not have.

        Args:
            digests: `b3:<64 hex>` each, any number.

        Source: IngestService.StatBlobs in protos/lading_proto/ingest/v1/ingest.proto.
        """
        limits = await self._known_limits()
        found: dict[str, BlobInfo | None] = dict.fromkeys(digests)
        for first in range(0, len(digests), limits.max_digests_per_call):
            part = digests[first : first + limits.max_digests_per_call]
            request = chunks_pb2.StatBlobsRequest(entity=self._entity, digests=part)
            response = await self._policy.call(
                lambda request=request: self._transport.call(self._transport.control.StatBlobs, request)  # type: ignore[misc]
            )
            for blob in response.blobs:
                found[blob.digest] = BlobInfo(blob.digest, blob.size_bytes, blob.chunk_count)
        return found

    async def read_file(
        self,
        digest: str | None = None,
        *,
        tree: str | None = None,
        path: str | None = None,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield a file's bytes as they come; a broken stream is continued where it ended.

        A whole file that was named by its digest is verified: the error comes after the last bytes.

        Args:
            digest: The file by content, `b3:<64 hex>`. Or else:
            tree: The file by place: the tree's digest,
            path: and the path in it.
            offset_bytes: Where to begin. Up to the file's size.
            length_bytes: How many bytes at most; None for all to the end.

        Raises:
            NotFound: The entity has no such file, tree or path.
            FailedPrecondition: The path is a reference.
            IntegrityError: The bytes that came do not have the digest.
            InvalidArgument: The file is not named one way or the other, or the range begins after its end.

        Source: IngestService.ReadFile in protos/lading_proto/ingest/v1/ingest.proto.
        """
        if offset_bytes < 0 or (length_bytes is not None and length_bytes < 0):
            raise InvalidArgument("offset_bytes and length_bytes are not negative.")
        request = files_pb2.ReadFileRequest(entity=self._entity, offset_bytes=offset_bytes)
        if digest is not None and tree is None and path is None:
            request.blob_digest = digest
        elif digest is None and tree is not None and path is not None:
            request.tree_path.tree_digest = tree
            request.tree_path.path = path
        else:
            raise InvalidArgument("Name the file by its digest, or by tree and path.")
        name = digest or f"{path!r} of {tree}"
        pieces = read_file(self._transport, self._policy, request, length_bytes, name)
        async with contextlib.aclosing(pieces):
            async for data in pieces:
                yield data

    async def upload_file(
        self, path: StrPath, *, upload_id: str | None = None, on_progress: ProgressCallback | None = None
    ) -> FileInfo:
        """Store one file as a plain stream of bytes; the server cuts it. For trees, upload_tree is faster.

        Args:
            path: The file.
            upload_id: A name for the upload, unique in the entity, `A-Za-z0-9._-`, at most 128 characters. With one
                that an interrupted upload had, it continues. Default: a fresh one.
            on_progress: Called ten times a second at most, and at the end. What it raises ends the upload.

        Raises:
            FileChanged: The file changed while it was sent.
            FailedPrecondition: The upload was completed before, with other content.
            ResourceExhausted: The store has too little free space.
            OSError: The file cannot be read.

        Source: IngestService.UploadFile and GetUpload in protos/lading_proto/ingest/v1/ingest.proto.
        """
        meter = ProgressMeter(on_progress)
        name = upload_id if upload_id is not None else uuid.uuid4().hex
        file = FileUpload(self._transport, self._entity, self._policy, path, name, meter)
        info = await file.run(continues=upload_id is not None)
        meter.finish()
        return info

    async def _known_limits(self) -> Limits:
        return self._limits or Limits.of((await self.get_capabilities()).limits)
