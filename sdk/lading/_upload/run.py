"""One upload, from files on disk to a tree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from lading._digest_cache import DigestCache
from lading._errors import LadingError, MissingContent
from lading._limits import Limits
from lading._model import TreeInfo, UploadResult
from lading._progress import ProgressCallback, ProgressMeter
from lading._retry import RetryPolicy
from lading._scan import LocalFile, Source
from lading._threads import Threads
from lading._transport import Transport
from lading._upload.files import BlobUpload
from lading._upload.known import KnownFiles
from lading._upload.session import Session
from lading._upload.tree import TreeEntries, put_tree
from lading_format.tree import FileEntry, ReferenceEntry, sort_key

_ROUNDS_AT_MOST = 3


async def upload(
    transport: Transport,
    entity: str,
    limits: Limits,
    policy: RetryPolicy,
    source: Source,
    on_progress: ProgressCallback | None,
    cache: DigestCache | None,
    recheck: bool,
) -> UploadResult:
    """Upload files and put their tree. See Content.upload_tree."""
    for rounds_left in reversed(range(_ROUNDS_AT_MOST)):
        session = Session(transport, entity)
        meter = ProgressMeter(
            on_progress,
            bytes_total=sum(file.size_bytes for file in source.files),
            files_total=len(source.files),
        )
        with Threads() as threads:
            known = KnownFiles(transport, entity, limits, policy, threads, cache)
            remembered = await known.remembered(source.files)
            unchanged = None if recheck else await _tree_of_unchanged(known, source, remembered)
            if unchanged is not None:
                _count_known(meter, source.files)
                return UploadResult(unchanged, True, meter.finish())
            blobs = BlobUpload(transport, session, limits, policy, meter, threads)
            digests = await _digests(known, blobs, meter, source.files, await known.stored(remembered))
        entries = _entries(source, digests)
        try:
            tree, already_present = await policy.call(partial(_put_tree, transport, session, entries))
        except MissingContent:
            # The lease lapsed between the commits and now. What is still there is not sent again.
            recheck = True
            if not rounds_left:
                raise
            continue
        await session.close()
        return UploadResult(tree, already_present, meter.finish())
    raise AssertionError("the last round returns or raises")


async def _tree_of_unchanged(known: KnownFiles, source: Source, remembered: Sequence[bytes | None]) -> TreeInfo | None:
    """Return the tree, if no file changed since it was read and the entity has the tree."""
    digests = [digest for digest in remembered if digest is not None]
    if not digests or len(digests) < len(source.files):
        return None
    return await known.stored_tree(_entries(source, digests))


async def _digests(
    known: KnownFiles,
    blobs: BlobUpload,
    meter: ProgressMeter,
    files: Sequence[LocalFile],
    stored: Sequence[bytes | None],
) -> list[bytes]:
    """Upload the files that are not known to be stored; return the digests of all."""
    unread = [file for file, digest in zip(files, stored, strict=True) if digest is None]
    _count_known(meter, [file for file, digest in zip(files, stored, strict=True) if digest is not None])
    hashed_ns = time.time_ns()
    read = await blobs.run(unread)
    await known.remember(unread, read, hashed_ns)
    rest = iter(read)
    return [next(rest) if digest is None else digest for digest in stored]


def _count_known(meter: ProgressMeter, files: Sequence[LocalFile]) -> None:
    size_bytes = sum(file.size_bytes for file in files)
    meter.add(
        bytes_done=size_bytes, bytes_deduplicated=size_bytes, files_done=len(files), files_deduplicated=len(files)
    )


def _entries(source: Source, digests: Sequence[bytes]) -> TreeEntries:
    entries: list[FileEntry | ReferenceEntry] = [
        FileEntry(file.path, digest, file.size_bytes, file.executable)
        for file, digest in zip(source.files, digests, strict=True)
    ]
    if source.references:
        entries += [
            ReferenceEntry(path, reference.uri, reference.checksum, reference.size_bytes)
            for path, reference in source.references
        ]
        entries.sort(key=lambda entry: sort_key(entry.path))
    return entries


async def _put_tree(transport: Transport, session: Session, entries: TreeEntries) -> tuple[TreeInfo, bool]:
    session_id = await session.current_id()
    try:
        return await put_tree(transport, session.entity, session_id, entries)
    except LadingError as error:
        session.note(error, session_id)
        raise
