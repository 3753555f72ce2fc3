"""What an upload does when a commit finds that chunks are gone or damaged."""

from __future__ import annotations

import asyncio
from array import array
from typing import cast

import pytest

from lading._errors import IntegrityError, LadingError
from lading._limits import Limits
from lading._local_files import LocalFile
from lading._progress import ProgressMeter
from lading._retry import RetryPolicy
from lading._threads import Threads
from lading._transport import Transport
from lading._upload.content import UploadingFile
from lading._upload.files import BlobUpload
from lading._upload.session import Session
from lading_proto.ingest.v1 import chunks_pb2

DIGESTS = [bytes([number]) * 32 for number in range(1, 4)]


class Upload(BlobUpload):
    """Notes what is to be repaired, and repairs nothing."""

    def __init__(self) -> None:
        transport = cast(Transport, None)
        with Threads() as threads:
            super().__init__(
                transport,
                cast(Session, None),
                Limits(),
                RetryPolicy(),
                ProgressMeter(None, bytes_total=0, files_total=0),
                threads,
            )
        self.repairs: list[tuple[set[bytes], float]] = []

    async def _repair(self, file: UploadingFile, missing: set[bytes], pause_seconds: float) -> None:
        self.repairs.append((missing, pause_seconds))

    async def answer(self, file: UploadingFile, reason: str, missing: list[bytes]) -> None:
        """Take one answer of the server."""
        result = chunks_pb2.BlobResult(
            blob_digest=file.digest,
            outcome=chunks_pb2.BLOB_OUTCOME_FAILED,
            error=chunks_pb2.ItemError(code=15 if reason == "CORRUPT_RECORD" else 9, reason=reason, message="told"),
            missing_chunk_digests=missing,
        )
        self._group = asyncio.TaskGroup()
        async with self._group:
            self._take_result(file, result)


def file_of_chunks() -> UploadingFile:
    source = LocalFile("a", "/a", 300, 0, False, 0, 0, 0)
    return UploadingFile(
        source, digest=b"\0" * 32, chunk_digests=b"".join(DIGESTS), chunk_sizes=array("I", [100] * 3), is_read=True
    )


async def test_chunks_that_are_missing_are_sent_again() -> None:
    upload = Upload()
    await upload.answer(file_of_chunks(), "MISSING_CHUNKS", DIGESTS[1:2])
    assert upload.repairs == [(set(DIGESTS[1:2]), 0.0)]


async def test_where_none_is_named_all_are_asked_for() -> None:
    upload = Upload()
    await upload.answer(file_of_chunks(), "MISSING_CHUNKS", [])
    assert upload.repairs == [(set(DIGESTS), 0.0)]


async def test_a_damaged_chunk_is_waited_for_until_the_server_has_forgotten_it_and_not_for_ever() -> None:
    upload, file = Upload(), file_of_chunks()
    for _ in range(4):
        await upload.answer(file, "CORRUPT_RECORD", [])
    assert upload.repairs == [(set(DIGESTS), pause) for pause in (0.0, 1.0, 4.0, 15.0)]
    with pytest.raises(ExceptionGroup) as raised:
        await upload.answer(file, "CORRUPT_RECORD", [])
    (error,) = raised.value.exceptions
    assert isinstance(error, IntegrityError)


async def test_any_other_failure_ends_the_upload_and_names_the_file() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await Upload().answer(file_of_chunks(), "DIGEST_MISMATCH", [])
    (error,) = raised.value.exceptions
    assert isinstance(error, LadingError)
    assert "/a: told" in str(error)
