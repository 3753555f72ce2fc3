"""Checking a store: the stream of what is found, continued when it breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable

from lading._check_models import CheckFinding, CheckProgress, CheckSummary, FindingKind, HurtVersion
from lading._errors import LadingError, PermissionDenied
from lading._registry.connection import Connection
from lading._retry import RetryPolicy
from lading._status import broken_stream
from lading._transport import Stream, Transport
from lading_proto.ingest.v1 import check_pb2
from lading_proto.registry.v1 import events_pb2

CheckEvent = CheckProgress | CheckFinding | HurtVersion | CheckSummary
NameVersion = Callable[[str, str], Awaitable[str]]

_CheckStream = Stream[check_pb2.CheckStoreRequest, check_pb2.CheckStoreResponse]


async def check_store(
    transport: Transport, policy: RetryPolicy, request: check_pb2.CheckStoreRequest, name_version: NameVersion
) -> AsyncGenerator[CheckEvent, None]:
    """Yield what a check finds. See Client.check.

    Args:
        name_version: Takes an entity and the id of a version, and returns its reference or "".
    """
    attempts = policy.start()
    is_begun = False
    while True:
        stream: _CheckStream = transport.stream(transport.checks.CheckStore(request))
        try:
            # No deadline: a pack is read between two messages, and keepalive watches the connection.
            while (message := await stream.read()) is not None:
                attempts.progress()
                is_begun = True
                # Whatever breaks from here on, the server knows where to go on.
                request.restart = False
                yield await _event(message, name_version)
                if message.HasField("summary"):
                    return
            raise broken_stream(transport.target)
        except LadingError as error:
            # Of a stream that broke, the server may not know yet. Without one it is somebody else's check.
            if error.reason == "CHECK_RUNNING" and not is_begun:
                raise
            await attempts.pause(error)
        finally:
            stream.cancel()


async def version_reference(connection: Connection, entity: str, version_uid: str) -> str:
    """Return `entity/project/name:vN` for a version's id; empty where the key may not ask, or nobody knows it."""
    request = events_pb2.ListEventsRequest(entity=entity, version_uid=version_uid, page_size=1)
    try:
        # The first event about a version is its commit.
        response = await connection.call(lambda stub: stub.ListEvents, request)
    except PermissionDenied:
        return ""
    for event in response.events:
        number = json.loads(event.after_json or "{}").get("number")
        if number is not None:
            return f"{entity}/{event.project}/{event.collection}:v{number}"
    return ""


async def _event(message: check_pb2.CheckStoreResponse, name_version: NameVersion) -> CheckEvent:
    match message.WhichOneof("part"):
        case "progress":
            told = message.progress
            return CheckProgress(told.phase, told.items_done, told.bytes_done, told.bytes_total)
        case "finding":
            return _finding(message.finding)
        case "hurt_version":
            hurt = message.hurt_version
            return HurtVersion(
                entity=hurt.entity,
                version_uid=hurt.version_uid,
                version=await name_version(hurt.entity, hurt.version_uid),
                tree_digest=hurt.tree_digest,
                tree_damaged=hurt.tree_damaged,
                damaged_paths=tuple(hurt.damaged_paths),
                damaged_files=hurt.damaged_files,
            )
        case _:
            summary = message.summary
            return CheckSummary(
                complete=summary.complete,
                items_done=summary.items_done,
                bytes_done=summary.bytes_done,
                findings=summary.findings,
                losses=summary.losses,
                healed=summary.healed,
                hurt_versions=summary.hurt_versions,
            )


def _finding(finding: check_pb2.CheckFinding) -> CheckFinding:
    name = check_pb2.FindingKind.Name(finding.kind).removeprefix("FINDING_KIND_").replace("_", " ").lower()
    return CheckFinding(
        kind=FindingKind(name),
        is_loss=finding.is_loss,
        entity=finding.entity,
        pack=finding.pack,
        offset=finding.offset if finding.HasField("offset") else None,
        digest=finding.digest,
        message=finding.message,
    )
