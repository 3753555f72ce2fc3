"""The tables from the protocol's reasons and codes to the SDK's errors are total."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc.aio import AioRpcError, Metadata

import lading
from lading._address import Address
from lading._errors import CODES, REASONS, error_from, one_error
from lading._status import error_from_rpc

_PROTOS = Path(__file__).parents[3] / "protos" / "lading_proto"
_REASON = re.compile(r"\(`([A-Z][A-Z_]+)`\)")
_HOST = Address("host", 1)


def _reasons() -> set[str]:
    return {reason for proto in _PROTOS.rglob("*.proto") for reason in _REASON.findall(proto.read_text())}


def test_every_reason_of_the_protos_has_its_error() -> None:
    reasons = _reasons()
    assert len(reasons) > 50
    assert reasons - REASONS.keys() == set()


def test_every_code_has_its_error() -> None:
    assert set(code_pb2.Code.values()) - {code_pb2.OK} == CODES.keys()
    assert {code.value[0] for code in grpc.StatusCode} - {0} == CODES.keys()


@pytest.mark.parametrize("reason", ["DISK_LOW", "CORRUPT_RECORD", "STORAGE_FAILED", "WINDOW_EXCEEDED"])
def test_what_repeating_cannot_help_is_not_repeated(reason: str) -> None:
    assert not REASONS[reason].retryable


@pytest.mark.parametrize(
    "reason", ["DRAINING", "DATABASE_UNAVAILABLE", "TOO_MANY_STREAMS", "STREAM_IDLE", "SESSION_EXPIRED"]
)
def test_what_passes_is_repeated(reason: str) -> None:
    assert REASONS[reason].retryable


def test_data_loss_is_never_repeated() -> None:
    assert not error_from(code_pb2.DATA_LOSS, "", "").retryable


def test_a_reason_that_a_newer_server_has_falls_back_to_its_code() -> None:
    error = error_from(code_pb2.NOT_FOUND, "FROM_THE_FUTURE", "no such thing", {"path": "a"})
    assert type(error) is lading.NotFound
    assert (error.reason, error.metadata, str(error)) == ("FROM_THE_FUTURE", {"path": "a"}, "no such thing")


def test_the_servers_own_words_and_details_come_through() -> None:
    error = error_from_rpc(_rpc_error(grpc.StatusCode.NOT_FOUND, _details("TREE_NOT_FOUND", "lading")), _HOST)
    assert type(error) is lading.NotFound
    assert (error.message, error.reason, error.metadata) == ("its words", "TREE_NOT_FOUND", {"digest": "b3:0"})


@pytest.mark.parametrize("details", [b"", b"\xff\xff", _PROTOS.name.encode()])
def test_details_that_cannot_be_read_are_ignored(details: bytes) -> None:
    error = error_from_rpc(_rpc_error(grpc.StatusCode.NOT_FOUND, details), _HOST)
    assert type(error) is lading.NotFound
    assert "host:1" in error.message


def test_the_reasons_of_other_domains_are_ignored() -> None:
    error = error_from_rpc(_rpc_error(grpc.StatusCode.ABORTED, _details("DRAINING", "proxy.example")), _HOST)
    assert type(error) is lading.Conflict


def test_a_server_at_grpcs_own_limit_is_busy() -> None:
    error = error_from_rpc(_rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, b"", "Concurrent RPC limit exceeded!"), _HOST)
    assert type(error) is lading.Busy


async def test_a_task_group_raises_the_one_error_that_ended_it() -> None:
    async def fail() -> None:
        raise lading.NotFound("gone")

    async def nested() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()

    async def both() -> None:
        with one_error():
            async with asyncio.TaskGroup() as group:
                group.create_task(nested())
                group.create_task(asyncio.Event().wait())

    with pytest.raises(lading.NotFound, match="gone"):
        await both()


def _details(reason: str, domain: str) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"digest": "b3:0"}))
    raw: bytes = status_pb2.Status(code=5, message="its words", details=[packed]).SerializeToString()
    return raw


def _rpc_error(code: grpc.StatusCode, details: bytes, message: str = "its words") -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(("grpc-status-details-bin", details)), message)
