"""One upload, from files on disk to a tree."""

from __future__ import annotations

import heapq
import time
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import starmap

from lading._cache.local import LocalCache
from lading._cache.uploaded import KEPT_FROM_BYTES, keep_uploaded
from lading._digest_cache import DigestCache
from lading._errors import Incompatible, LadingError, MissingContent
from lading._known_digests import KnownDigests
from lading._limits import Limits
from lading._local_files import LocalFile
from lading._model import Reference, TreeInfo, UploadResult
from lading._progress import ProgressCallback, ProgressMeter
from lading._retry import RetryPolicy
from lading._scan import Source
from lading._threads import Threads
from lading._transport import Transport
from lading._upload.content import DIGEST_BYTES
from lading._upload.files import BlobUpload
from lading._upload.known import KnownFiles
from lading._upload.session import Session
from lading._upload.tree import TreeEntries, put_tree
from lading_format.chunking import MAX_CHUNK_BYTES
from lading_format.tree import FileEntry, ReferenceEntry, sort_key

_ROUNDS_AT_MOST = 3


async def upload(
    transport: Transport,
    entity: str,
    limits: Limits,
    policy: RetryPolicy,
    source: Source,
    on_progress: ProgressCallback | None,
    known_digests: DigestCache | None,
    cache: LocalCache | None,
    recheck: bool,
) -> UploadResult:
    """Upload files and put their tree. See Content.upload_tree."""
    if limits.max_chunk_bytes < MAX_CHUNK_BYTES:
        raise Incompatible(
            f"{transport.target} takes chunks of up to {limits.max_chunk_bytes:,} bytes, and files are cut into up to "
            f"{MAX_CHUNK_BYTES:,}: ask its operator to leave max_chunk_bytes as it is."
        )
    for rounds_left in reversed(range(_ROUNDS_AT_MOST)):
        session = Session(transport, entity)
        meter = ProgressMeter(
            on_progress,
            bytes_total=source.size_bytes,
            files_total=len(source.files),
        )
        with Threads() as threads:
            known = KnownFiles(transport, entity, limits, policy, threads, known_digests)
            remembered = await known.remembered(source.files)
            unchanged = None if recheck else await _tree_of_unchanged(known, source, remembered)
            if unchanged is not None:
                _count_known(meter, source.files, range(len(source.files)))
                return UploadResult(unchanged, True, meter.finish())
            blobs = BlobUpload(transport, session, limits, policy, meter, threads)
            await known.keep_stored(remembered)
            digests = await _digests(known, blobs, meter, source.files, remembered)
        entries = _Entries(source, digests)
        try:
            tree, already_present = await policy.call(partial(_put_tree, transport, session, entries))
        except MissingContent:
            # The lease lapsed between the commits and now. What is still there is not sent again.
            recheck = True
            if not rounds_left:
                raise
            continue
        await session.close()
        if cache is not None:
            await _keep(cache, source, entries, tree)
        return UploadResult(tree, already_present, meter.finish())
    raise AssertionError("the last round returns or raises")


async def _tree_of_unchanged(known: KnownFiles, source: Source, remembered: KnownDigests) -> TreeInfo | None:
    """Return the tree, if no file changed since it was read and the entity has the tree."""
    if not remembered or not remembered.are_all:
        return None
    return await known.stored_tree(_Entries(source, remembered.joined))


async def _digests(
    known: KnownFiles,
    blobs: BlobUpload,
    meter: ProgressMeter,
    files: Sequence[LocalFile],
    stored: KnownDigests,
) -> bytearray:
    """Upload the files that are not known to be stored; return the digests of all, 32 bytes each."""
    unread = array("I", stored.unknown())
    if len(unread) < len(files):
        _count_known(meter, files, (at for at, digest in enumerate(stored) if digest is not None))
    hashed_ns = time.time_ns()
    read = await blobs.run((files[at] for at in unread), len(unread))
    await known.remember(((files[at], digest) for at, digest in zip(unread, _each(read), strict=True)), hashed_ns)
    if len(unread) == len(files):
        return read
    for at, digest in zip(unread, _each(read), strict=True):
        stored[at] = digest
    return stored.joined


def _count_known(meter: ProgressMeter, files: Sequence[LocalFile], numbers: Iterable[int]) -> None:
    count = size_bytes = 0
    for at in numbers:
        count += 1
        size_bytes += files[at].size_bytes
    meter.add(bytes_done=size_bytes, bytes_deduplicated=size_bytes, files_done=count, files_deduplicated=count)


def _each(digests: bytes | bytearray) -> Iterator[bytes]:
    for at in range(0, len(digests), DIGEST_BYTES):
        yield bytes(digests[at : at + DIGEST_BYTES])


class _Entries(Collection[FileEntry | ReferenceEntry]):
    """The entries of a tree by path, made when they are read: a million at once would take 250 MB."""

    def __init__(self, source: Source, digests: bytes | bytearray) -> None:
        """`digests`: of the source's files, 32 bytes each, in their order."""
        self._source = source
        self._digests = digests

    def __len__(self) -> int:
        return len(self._source.files) + len(self._source.references)

    def __contains__(self, entry: object) -> bool:
        return any(entry == other for other in self)

    def __iter__(self) -> Iterator[FileEntry | ReferenceEntry]:
        files = (
            FileEntry(file.path, digest, file.size_bytes, file.executable)
            for file, digest in zip(self._source.files, _each(self._digests), strict=True)
        )
        if not self._source.references:
            return files
        references = starmap(_reference_entry, self._source.references)
        return heapq.merge(files, references, key=lambda entry: sort_key(entry.path))


def _reference_entry(path: str, reference: Reference) -> ReferenceEntry:
    return ReferenceEntry(path, reference.uri, reference.checksum, reference.size_bytes)


async def _keep(cache: LocalCache, source: Source, entries: TreeEntries, tree: TreeInfo) -> None:
    """Keep in the local cache what costs nothing to keep."""
    large = {file.path: file for file in source.files if file.size_bytes >= KEPT_FROM_BYTES}
    if not large:
        return
    files = [
        (large[entry.path], entry.digest) for entry in entries if entry.path in large and isinstance(entry, FileEntry)
    ]
    with Threads() as threads:
        await threads.run(keep_uploaded, cache, files, entries, tree.digest, threads.stop)


async def _put_tree(transport: Transport, session: Session, entries: TreeEntries) -> tuple[TreeInfo, bool]:
    session_id = await session.current_id()
    try:
        return await put_tree(transport, session.entity, session_id, entries)
    except LadingError as error:
        session.note(error, session_id)
        raise
