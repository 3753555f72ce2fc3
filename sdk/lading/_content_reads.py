"""Content out, by digest: what can be asked for and fetched. Nothing here changes what is stored."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import MappingProxyType
from typing import Literal

from lading._cache.local import LocalCache
from lading._cache.transfer import Transfer
from lading._digest_cache import DigestCache
from lading._download.planning import planned
from lading._download.run import download
from lading._errors import Incompatible, InvalidArgument
from lading._limits import Limits
from lading._listing import change_pages, tree_pages
from lading._model import (
    BlobInfo,
    Capabilities,
    DownloadResult,
    ListedEntry,
    PathChange,
    StrPath,
    TreeInfo,
)
from lading._progress import ProgressCallback
from lading._remote_file import RemoteFile
from lading._retry import RetryPolicy
from lading._simple import read_file
from lading._threads import Threads
from lading._transport import Transport
from lading._upload.tree import tree_info
from lading._verify import VerifyResult, verify_directory
from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, files_pb2, trees_pb2

# What is read at once of a file that is here.
_READ_BYTES = 1 << 20


class ContentReads:
    """The half of `Content` that asks and fetches."""

    def __init__(
        self,
        transport: Transport,
        entity: str,
        policy: RetryPolicy,
        digests: DigestCache | None = None,
        cache: LocalCache | None = None,
    ) -> None:
        """Use a transport.

        Args:
            transport: Whoever made it closes it.
            entity: The tenant whose content this is about.
            policy: When to try again, and when to give up.
            digests: What is known of files that were read before; None to read every file.
            cache: Files that this machine has had; None to ask the server for every file.
        """
        self._transport = transport
        self._entity = entity
        self._policy = policy
        self._digests = digests
        self._cache = cache
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

    async def download_tree(
        self,
        digest: str,
        root: StrPath,
        *,
        prefix: str = "",
        link: Literal["hard"] | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> DownloadResult:
        """Write a tree's files below `root`, and return what was done.

        What the local cache has is taken from there, and no server is asked where it has everything; what is fetched
        is kept there.

        Files that are already there with the right content are left alone; an interrupted download continues from
        what is in `root/.lading-partial`. Every file is verified against its digest before it gets its name, and
        the listing against the tree's digest before anything is written. With a `prefix` each file is verified,
        but that the listing has all of them, and only them, is the server's word. References are not fetched.

        Args:
            digest: The tree, `b3:<64 hex>`.
            root: Directory to write to; created if missing.
            prefix: Only paths that begin with it: `images/` for a directory.
            link: `"hard"` to get read-only names of the cache's own files, which take no space, where both are on one
                file system and the file is not executable. Whoever edits one all the same changes it in every
                directory that was made so.
            on_progress: Called ten times a second at most, and at the end. What it raises ends the download.

        Raises:
            NotFound: The entity has no such tree.
            InvalidArgument: The digest is malformed, or `link` is neither.
            IntegrityError: The server sent something else than what the digest stands for. It was not kept.
            UnsafePath: The tree has a path that cannot be written safely, or a link is in the way below `root`.
            AlreadyExists: A directory is where a file should be, or the other way round.
            OSError: A file cannot be written.

        Source: IngestService.ListTree and ReadBlobs in protos/lading_proto/ingest/v1/ingest.proto.
        """
        if link not in (None, "hard"):
            raise InvalidArgument(f'link={link!r} is not known. Give "hard", or leave it out.')
        with Threads() as threads:
            async with self._cached(threads, links=link is not None) as cache:
                plan = await planned(
                    self._transport, self._entity, self._known_limits, self._policy, digest, prefix, cache, threads
                )
                return await download(
                    self._transport,
                    self._entity,
                    self._known_limits,
                    self._policy,
                    plan,
                    root,
                    on_progress,
                    cache,
                    threads,
                )

    async def verify_tree(self, digest: str, directory: StrPath) -> VerifyResult:
        """Compare a directory with a tree: every file is read and hashed. Changes nothing. See Version.verify.

        Raises:
            NotFound: The entity has no such tree.
            IntegrityError: The server's listing does not have the tree's digest.
            InvalidArgument: There is no such directory, or the digest is malformed.
            OSError: A file cannot be read.

        Source: IngestService.ListTree in protos/lading_proto/ingest/v1/ingest.proto.
        """
        if not os.path.isdir(directory):
            raise InvalidArgument(
                f"{os.fspath(directory)!r} is not a directory. Download the version, or name where it is."
            )
        with Threads() as threads:
            async with self._cached(threads) as cache:
                plan = await planned(
                    self._transport, self._entity, self._known_limits, self._policy, digest, "", cache, threads
                )
            return await verify_directory(plan, directory, threads)

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
        known = None if fold_directories else await self._known_listing(digest)
        if known is not None:
            for entry in known:
                if entry.path.startswith(prefix):
                    yield entry
            return
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
        if digest is not None and not offset_bytes and length_bytes is None:
            fd = await self._open_cached(digest)
            if fd is not None:
                try:
                    while data := await asyncio.to_thread(os.read, fd, _READ_BYTES):
                        yield data
                finally:
                    os.close(fd)
                return
        name = digest or f"{path!r} of {tree}"
        pieces = read_file(self._transport, self._policy, request, length_bytes, name)
        async with contextlib.aclosing(pieces):
            async for data in pieces:
                yield data

    @contextlib.asynccontextmanager
    async def open_file(self, digest: str, size_bytes: int, path: str = "") -> AsyncGenerator[RemoteFile, None]:
        """Open a stored file for reading by ranges: `async with client.open_file(digest, size) as file`.

        One that the local cache has, of up to 1 GiB, is hashed and then read from there.

        Args:
            digest: The file, `b3:<64 hex>`.
            size_bytes: Its size, as a listing has it.
            path: What it is called in messages. Default: its digest.

        Source: IngestService.ReadFile in protos/lading_proto/ingest/v1/ingest.proto.
        """
        async with RemoteFile(self, path or digest, digest, size_bytes, await self._open_cached(digest)) as file:
            yield file

    @contextlib.asynccontextmanager
    async def _cached(self, threads: Threads, *, links: bool = False) -> AsyncIterator[Transfer | None]:
        """Open the cache for one transfer; None where there is none, or it cannot be used."""
        cache = self._cache.transfer(threads.stop, links=links) if self._cache is not None else None
        if cache is None:
            yield None
            return
        try:
            yield cache
        finally:
            await threads.run(cache.close)

    async def _open_cached(self, digest: str) -> int | None:
        """Open a file that the cache has, and that was just hashed; None where it has none."""
        if self._cache is None:
            return None
        opening = asyncio.create_task(asyncio.to_thread(self._cache.open_blob, digest))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # It goes on in its thread, and nobody else would close what it opens.
            opening.add_done_callback(_close_opened)
            raise

    async def _known_listing(self, digest: str) -> list[ListedEntry] | None:
        """Return a tree's whole listing, if the cache has it and it is not too long."""
        return await asyncio.to_thread(self._cache.listing, digest) if self._cache is not None else None

    async def _known_limits(self) -> Limits:
        return self._limits or Limits.of((await self.get_capabilities()).limits)


def _close_opened(opening: asyncio.Task[int | None]) -> None:
    fd = None if opening.cancelled() or opening.exception() is not None else opening.result()
    if fd is not None:
        os.close(fd)
