"""One version as a call saw it, and its files."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lading._errors import FailedPrecondition, InvalidArgument, NotFound
from lading._model import EntryKind, ListedEntry, PathChange, StrPath
from lading._progress import ProgressCallback
from lading._remote_file import RemoteFile
from lading._verify import VerifyResult
from lading_format.names import LATEST

if TYPE_CHECKING:
    from lading._content import Content
    from lading._registry.connection import Connection


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a collection: what is known of it, and a way to its files.

    A view of the moment at which it was asked for. Its tree never changes; ask again for aliases, tags, card and
    metadata of now. The methods go through the client that it came from, and end with it.

    Attributes:
        uid: Names it for ever, in every collection: 32 hexadecimal digits.
        entity: The tenant.
        project: The project of its collection.
        collection: The name of its collection.
        number: N: people write `vN`. Dense in the collection, from 0.
        type: The type of its collection: `dataset`, `model`.
        digest: Its tree, `b3:<64 hex>`: the `b3sum` of the sorted `b3sum` listing of its files.
        size_bytes: The sum of its files' sizes.
        file_count: How many files it has.
        reference_count: How many references to files elsewhere it has.
        description: Its card, in Markdown. A link has the card of its source.
        metadata: What people say of it. A link has the metadata of its source.
        tags: Sorted. A link has tags of its own.
        aliases: The aliases that pointed at it, sorted.
        created_at: When it was committed, or linked.
        created_by: Who committed or linked it.
        run_id: The run that logged it; empty when none did.
        is_link: Whether it is a version of a registered model, which points at another version.
        source: What a link points at: `project/collection:vN`; empty for what was logged.
        source_uid: The id of the version that a link points at; empty for what was logged.
        expires_at: When its time to live is over; None for never. Only then is it deleted, and only when no alias other
            than `latest` and no link points at it.
        deleted_at: When it was deleted; None for what is there.
        purge_at: Until when it can be undeleted; None for what is there.
    """

    uid: str
    entity: str
    project: str
    collection: str
    number: int
    type: str
    digest: str
    size_bytes: int
    file_count: int
    reference_count: int
    description: str
    metadata: Mapping[str, Any] = field(hash=False)
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    created_at: datetime
    created_by: str
    run_id: str
    is_link: bool
    source: str
    source_uid: str
    expires_at: datetime | None
    deleted_at: datetime | None
    purge_at: datetime | None
    connection: Connection = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its short name: `digits:v3`."""
        return f"{self.collection}:v{self.number}"

    @property
    def reference(self) -> str:
        """Its full name, which always means this version: `acme/vision/digits:v3`."""
        return f"{self.entity}/{self.project}/{self.name}"

    @property
    def is_latest(self) -> bool:
        """Whether it was the newest of its collection."""
        return LATEST in self.aliases

    def __str__(self) -> str:
        return self.reference

    async def download(
        self,
        root: StrPath | None = None,
        *,
        prefix: str = "",
        link: Literal["hard"] | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Path:
        """Write the version's files below `root` and return it.

        What the local cache has is taken from there: of a version that was downloaded before, nothing is asked of the
        server but its name. Files that are already there with the right content are left alone; an interrupted download
        continues. Every file is verified against its digest before it gets its name. References are not fetched.

        Args:
            root: Directory to write to; created if missing. Default: `./artifacts/<collection>:v<N>`.
            prefix: Only paths that begin with it: `images/` for a directory.
            link: `"hard"` to get read-only names of the cache's own files, which take no space, where both are on one
                file system and the file is not executable. Whoever edits one all the same changes it in every
                directory that was made so.
            on_progress: Called ten times a second at most, and at the end. What it raises ends the download.

        Raises:
            NotFound: The version's content is gone.
            IntegrityError: The server sent bytes that do not have the promised digest. They were not kept.
            UnsafePath: A path cannot be written safely, or a link is in the way below `root`.
            AlreadyExists: A directory is where a file should be, or the other way round.
            OSError: A file cannot be written.

        Source: IngestService.ReadBlobs in protos/lading_proto/ingest/v1/ingest.proto.
        """
        content = await self._content()
        where = Path("artifacts") / self.name if root is None else Path(root)
        result = await content.download_tree(self.digest, where, prefix=prefix, link=link, on_progress=on_progress)
        return result.root

    async def files(self, prefix: str = "", fold_directories: bool = False) -> AsyncGenerator[ListedEntry, None]:
        """Yield what the version holds, sorted by the bytes of the paths.

        Args:
            prefix: Only paths that begin with it.
            fold_directories: Yield each directory of this level as one entry, instead of what is below it.

        Raises:
            NotFound: The version's content is gone.

        Source: IngestService.ListTree in protos/lading_proto/ingest/v1/ingest.proto.
        """
        content = await self._content()
        entries = content.list_tree(self.digest, prefix=prefix, fold_directories=fold_directories)
        async with contextlib.aclosing(entries):
            async for entry in entries:
                yield entry

    def open(self, path: str) -> AbstractAsyncContextManager[RemoteFile]:
        """Open a file for reading by ranges, without downloading it: `async with version.open("model.pt") as file`.

        A file that the local cache has, of up to 1 GiB, is hashed and then read from there.

        Args:
            path: A path of the version.

        Raises (when the block is entered):
            NotFound: The version has no such path.
            FailedPrecondition: The path is a reference: its bytes lie elsewhere.

        Source: IngestService.ReadFile in protos/lading_proto/ingest/v1/ingest.proto.
        """
        return self._open(path)

    async def read_bytes(self, path: str) -> bytes:
        """Return a whole file, verified against its digest. For large files, `open` or `download` it.

        Args:
            path: A path of the version.

        Raises:
            NotFound: The version has no such path.
            FailedPrecondition: The path is a reference: its bytes lie elsewhere.
            IntegrityError: The bytes that came do not have the digest.

        Source: IngestService.ReadFile in protos/lading_proto/ingest/v1/ingest.proto.
        """
        entry = await self._entry(path)
        content = await self._content()
        async with contextlib.aclosing(content.read_file(entry.digest)) as messages:
            return b"".join([data async for data in messages])

    async def verify(self, directory: StrPath) -> VerifyResult:
        """Compare a directory with the version: every file is read and hashed. Changes nothing.

        The listing is first verified against the version's digest. What is at the place of a reference is not looked
        at.

        Args:
            directory: What `download` wrote, say.

        Raises:
            NotFound: The version's content is gone.
            IntegrityError: The server's listing does not have the version's digest.
            InvalidArgument: There is no such directory.
            OSError: A file cannot be read.

        Source: IngestService.ListTree in protos/lading_proto/ingest/v1/ingest.proto.
        """
        content = await self._content()
        return await content.verify_tree(self.digest, directory)

    async def diff(self, other: Version) -> AsyncGenerator[PathChange, None]:
        """Yield the paths that differ from this version to another, sorted.

        Args:
            other: The version after, of the same entity and of any collection.

        Raises:
            InvalidArgument: The other version is of another entity.
            NotFound: The content of one of them is gone.

        Source: IngestService.DiffTrees in protos/lading_proto/ingest/v1/ingest.proto.
        """
        if other.entity != self.entity:
            raise InvalidArgument(f"{other} is of another entity than {self}. Download both to compare them.")
        content = await self._content()
        async with contextlib.aclosing(content.diff_trees(self.digest, other.digest)) as changes:
            async for change in changes:
                yield change

    async def _content(self) -> Content:
        return await self.connection.content(self.entity)

    @contextlib.asynccontextmanager
    async def _open(self, path: str) -> AsyncGenerator[RemoteFile, None]:
        entry = await self._entry(path)
        content = await self._content()
        async with content.open_file(entry.digest, entry.size_bytes or 0, path) as file:
            yield file

    async def _entry(self, path: str) -> ListedEntry:
        async with contextlib.aclosing(self.files(path)) as entries:
            async for entry in entries:
                if entry.path != path:
                    break
                if entry.kind is EntryKind.REFERENCE:
                    raise FailedPrecondition(f"{path!r} of {self} is a reference. Its bytes are at {entry.uri}.")
                return entry
        raise NotFound(f"{self} has no file {path!r}. `files()` lists what it has.")
