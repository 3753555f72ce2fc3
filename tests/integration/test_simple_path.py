"""UploadFile, GetUpload and ReadFile as any gRPC client calls them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from lading_proto.ingest.v1 import files_pb2
from tests.support.server import ServerProcess
from tests.support.wire import ENTITY, Wire, file_entry, iter_of, reason_of, text_digest


@pytest.fixture
async def wire(shared_server: ServerProcess) -> AsyncIterator[Wire]:
    async with Wire(shared_server.target) as client:
        yield client


def requests(
    upload_id: str, parts: Sequence[bytes], offset: int = 0, finish: files_pb2.UploadFileFinish | None = None
) -> list[files_pb2.UploadFileRequest]:
    start = files_pb2.UploadFileStart(entity=ENTITY, upload_id=upload_id, offset_bytes=offset)
    return [
        files_pb2.UploadFileRequest(start=start),
        *(files_pb2.UploadFileRequest(data=part) for part in parts),
        files_pb2.UploadFileRequest(finish=finish or files_pb2.UploadFileFinish()),
    ]


async def status(wire: Wire, upload_id: str) -> files_pb2.GetUploadResponse:
    response: files_pb2.GetUploadResponse = await wire.stub.GetUpload(
        files_pb2.GetUploadRequest(entity=ENTITY, upload_id=upload_id)
    )
    return response


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), reason_of(caught.value)


@pytest.mark.parametrize("size", [0, 1, 1000, 131_072, 131_073, 2 << 20, (2 << 20) + 1, 9_999_999])
async def test_a_file_comes_back_as_it_was_sent(wire: Wire, size: int) -> None:
    data = random.Random(size).randbytes(size)
    parts = [data[at : at + 100_000] for at in range(0, size, 100_000)]
    finish = files_pb2.UploadFileFinish(expected_digest=text_digest(data), expected_size_bytes=size)
    response = await wire.stub.UploadFile(iter_of(requests(f"size-{size}", parts, finish=finish)))
    assert (response.digest, response.size_bytes, response.new_bytes) == (text_digest(data), size, size)
    assert await wire.read(response.digest) == data
    for offset, length in ((0, 1), (size // 2, size // 3), (size, 0), (max(0, size - 1), 10)):
        assert await wire.read(response.digest, offset, length) == data[offset : offset + length or None]


async def test_the_same_bytes_are_not_stored_twice(wire: Wire) -> None:
    data = random.Random(31).randbytes(3_000_000)
    first = await wire.stub.UploadFile(iter_of(requests("dedup-1", [data[:1_500_000], data[1_500_000:]])))
    second = await wire.stub.UploadFile(
        iter_of(requests("dedup-2", [data[i : i + 77_777] for i in range(0, len(data), 77_777)]))
    )
    assert first.digest == second.digest
    assert (first.new_bytes, second.new_bytes) == (len(data), 0)


async def test_an_upload_continues_where_its_durable_bytes_end(wire: Wire) -> None:
    data = random.Random(32).randbytes(20_000_000)
    call = wire.stub.UploadFile()
    for request in requests("resumed", [data[at : at + 262_144] for at in range(0, 10_000_000, 262_144)])[:-1]:
        await call.write(request)
    while (durable := (await status(wire, "resumed")).durable_bytes) < 5_000_000:
        pass
    call.cancel()
    # What arrived before the end may still become durable; a stale offset is told the right one.
    while True:
        try:
            response = await wire.stub.UploadFile(iter_of(_rest("resumed", data, durable)))
            break
        except grpc.aio.AioRpcError as error:
            assert reason_of(error) == "OFFSET_MISMATCH"
            durable = (await status(wire, "resumed")).durable_bytes
    assert response.digest == text_digest(data)
    complete = await status(wire, "resumed")
    assert (complete.state, complete.durable_bytes, complete.digest) == (
        files_pb2.UPLOAD_STATE_COMPLETE,
        len(data),
        text_digest(data),
    )
    assert await wire.read(response.digest) == data


def _rest(upload_id: str, data: bytes, offset: int) -> list[files_pb2.UploadFileRequest]:
    parts = [data[at : at + 262_144] for at in range(offset, len(data), 262_144)]
    return requests(upload_id, parts, offset)


async def test_a_wrong_offset_is_told_the_right_one(wire: Wire) -> None:
    call = wire.stub.UploadFile(iter_of(requests("offset", [b"x"], offset=5)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), reason_of(caught.value)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "OFFSET_MISMATCH",
    )
    assert "0" in (caught.value.details() or "")


async def test_a_finished_upload_says_so(wire: Wire) -> None:
    await wire.stub.UploadFile(iter_of(requests("finished", [b"done"])))
    again = await refusal(wire.stub.UploadFile(iter_of(requests("finished", [b"done"]))))
    assert again == (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_COMPLETE")
    assert (await status(wire, "finished")).digest == text_digest(b"done")


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (files_pb2.UploadFileFinish(expected_digest=text_digest(b"other")), "DIGEST_MISMATCH"),
        (files_pb2.UploadFileFinish(expected_size_bytes=5), "SIZE_MISMATCH"),
    ],
)
async def test_a_file_that_is_not_as_expected_is_discarded(
    wire: Wire, finish: files_pb2.UploadFileFinish, reason: str
) -> None:
    upload_id = f"wrong-{reason}"
    sent = iter_of(requests(upload_id, [b"four"], finish=finish))
    assert await refusal(wire.stub.UploadFile(sent)) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    get = wire.stub.GetUpload(files_pb2.GetUploadRequest(entity=ENTITY, upload_id=upload_id))
    assert await refusal(get) == (grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND")
    retried = await wire.stub.UploadFile(iter_of(requests(upload_id, [b"four"])))
    assert retried.digest == text_digest(b"four")


@pytest.mark.parametrize("upload_id", ["", "a b", "../x", "ü", "x" * 129])
async def test_an_upload_id_that_is_no_id_is_refused(wire: Wire, upload_id: str) -> None:
    sent = iter_of(requests(upload_id, [b"x"]))
    assert await refusal(wire.stub.UploadFile(sent)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_UPLOAD")


async def test_a_second_stream_takes_the_upload_over(wire: Wire) -> None:
    first = wire.stub.UploadFile()
    await first.write(requests("taken", [])[0])
    while True:  # until the first stream has the upload
        try:
            await status(wire, "taken")
            break
        except grpc.aio.AioRpcError as error:
            assert reason_of(error) == "UPLOAD_NOT_FOUND"
    second = await wire.stub.UploadFile(iter_of(requests("taken", [b"from the second"])))
    await first.write(files_pb2.UploadFileRequest(data=b"from the first"))
    await first.write(requests("taken", [])[-1])
    assert await refusal(first) == (grpc.StatusCode.ABORTED, "UPLOAD_TAKEN_OVER")
    assert second.digest == text_digest(b"from the second")
    assert (await status(wire, "taken")).digest == second.digest


async def test_a_file_of_a_tree_is_read_by_its_path(wire: Wire) -> None:
    session = await wire.session()
    await wire.put_blob(session, b"by path")
    tree = (await wire.put_tree(session, [file_entry("dir/file.txt", b"by path")])).tree.digest

    async def read(path: str) -> bytes:
        target = files_pb2.TreePath(tree_digest=tree, path=path)
        request = files_pb2.ReadFileRequest(entity=ENTITY, tree_path=target)
        return b"".join([answer.data async for answer in wire.stub.ReadFile(request)])

    assert await read("dir/file.txt") == b"by path"
    for missing in ("dir", "dir/file", "dir/file.txt2", "zzz"):
        assert await refusal(read(missing)) == (grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND")


async def test_many_uploads_at_once_do_not_mix(wire: Wire) -> None:
    rng = random.Random(33)
    files = [rng.randbytes(rng.randrange(1, 400_000)) for _ in range(30)]

    async def upload(number: int, data: bytes) -> str:
        parts = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
        response = await wire.stub.UploadFile(iter_of(requests(f"many-{number}", parts)))
        return str(response.digest)

    digests = await asyncio.gather(*(upload(number, data) for number, data in enumerate(files)))
    assert digests == [text_digest(data) for data in files]
    for digest, data in zip(digests, files, strict=True):
        assert await wire.read(digest) == data
