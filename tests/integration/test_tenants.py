"""Two entities that store the same bytes learn nothing of each other."""

from __future__ import annotations

import grpc
import pytest

from lading_proto.ingest.v1 import chunks_pb2, files_pb2, trees_pb2
from tests.support.server import ServerProcess
from tests.support.wire import Wire, chunk, digest_of, file_entry, iter_of, reason_of, recipe, text_digest

SECRET = b"the weights that acme trained for a month"


async def test_what_one_entity_stored_does_not_exist_for_another(shared_server: ServerProcess) -> None:
    async with Wire(shared_server.target, "acme") as acme, Wire(shared_server.target, "rival") as rival:
        session = await acme.session()
        await acme.put_blob(session, SECRET)
        tree = (await acme.put_tree(session, [file_entry("model.bin", SECRET)])).tree.digest

        mine = await rival.session()
        assert await rival.missing(mine, [SECRET]) == [0]
        (result,) = await rival.commit(mine, [recipe(SECRET)])
        assert result.error.reason == "MISSING_CHUNKS"
        stat = await rival.stub.StatBlobs(chunks_pb2.StatBlobsRequest(entity="rival", digests=[text_digest(SECRET)]))
        assert list(stat.missing_digests) == [text_digest(SECRET)]
        for call in (
            rival.read(text_digest(SECRET)),
            rival.stub.GetTree(trees_pb2.GetTreeRequest(entity="rival", tree_digest=tree)),
            rival.stub.ListTree(trees_pb2.ListTreeRequest(entity="rival", tree_digest=tree)),
            rival.put_tree(mine, [file_entry("model.bin", SECRET)]),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert reason_of(caught.value) in {"BLOB_NOT_FOUND", "TREE_NOT_FOUND", "MISSING_BLOBS"}
        (piece,) = [
            piece
            async for answer in rival.stub.ReadBlobs(
                chunks_pb2.ReadBlobsRequest(
                    entity="rival", ranges=[chunks_pb2.BlobRange(blob_digest=digest_of(SECRET))]
                )
            )
            for piece in answer.pieces
        ]
        assert (piece.error.reason, piece.data) == ("BLOB_NOT_FOUND", b"")


async def test_a_session_of_another_entity_is_as_unknown_as_none(shared_server: ServerProcess) -> None:
    async with Wire(shared_server.target, "acme") as acme, Wire(shared_server.target, "rival") as rival:
        foreign = await acme.session()
        errors = []
        for session in (foreign, "0" * 32):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rival.missing(session, [b"x"])
            errors.append((caught.value.code(), reason_of(caught.value), caught.value.details()))
        assert errors[0] == errors[1]
        # And the rival cannot close it.
        await rival.stub.CloseSession(chunks_pb2.CloseSessionRequest(entity="rival", session_id=foreign))
        assert await acme.missing(foreign, [b"nobody has this"]) == [0]


async def test_the_same_upload_id_in_two_entities_is_two_uploads(shared_server: ServerProcess) -> None:
    digests = []
    for entity, data in (("acme", b"from acme"), ("rival", b"from rival")):
        async with Wire(shared_server.target, entity) as wire:
            start = files_pb2.UploadFileStart(entity=entity, upload_id="same-id")
            requests = [
                files_pb2.UploadFileRequest(start=start),
                files_pb2.UploadFileRequest(data=data),
                files_pb2.UploadFileRequest(finish=files_pb2.UploadFileFinish()),
            ]
            digests.append((await wire.stub.UploadFile(iter_of(requests))).digest)
    assert digests == [text_digest(b"from acme"), text_digest(b"from rival")]


async def test_the_same_bytes_are_stored_once_for_each_entity(shared_server: ServerProcess) -> None:
    data = b"bytes that both have"
    for entity in ("first", "second"):
        async with Wire(shared_server.target, entity) as wire:
            session = await wire.session()
            assert await wire.missing(session, [data]) == [0]
            await wire.put(session, [chunk(data)])
            assert await wire.missing(session, [data]) == []
