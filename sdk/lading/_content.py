"""Content in and out, by digest: what both clients are made of. Knows no names; those are the registry's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

from lading._content_reads import ContentReads
from lading._errors import InvalidArgument
from lading._model import (
    FileInfo,
    Reference,
    StrPath,
    UploadResult,
    Usage,
)
from lading._progress import ProgressCallback, ProgressMeter
from lading._scan import scan_directory, scan_mapping
from lading._simple import FileUpload
from lading._upload.run import upload
from lading_proto.ingest.v1 import usage_pb2


class Content(ContentReads):
    """Stores and fetches one entity's content: trees of files, and single files, named by their digests.

    Every method repeats calls that failed for a passing reason, and raises Unavailable (or OutcomeUnknown, or Busy)
    when there was no progress for as long as the policy says.
    """

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
            self._transport, self._entity, limits, self._policy, found, on_progress, self._digests, self._cache, recheck
        )

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
