"""The method of CheckService: names its rule and converts. No rules here."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from lading_format.digest import format_digest
from lading_proto.ingest.v1 import check_pb2, check_pb2_grpc
from lading_server.common.callers import current_principal
from lading_server.common.drain import Drain
from lading_server.common.errors import Draining
from lading_server.common.streams import write_with_deadline
from lading_server.ingest.domain.check import Checker, CheckRequest
from lading_server.ingest.domain.check_findings import (
    CheckEvent,
    Finding,
    FindingKind,
    HurtVersion,
    Level,
    Progress,
    Summary,
)
from lading_server.ingest.domain.entities import check_entity

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_KINDS = {
    FindingKind.CHUNK_LOST: check_pb2.FINDING_KIND_CHUNK_LOST,
    FindingKind.BLOB_DAMAGED: check_pb2.FINDING_KIND_BLOB_DAMAGED,
    FindingKind.TREE_DAMAGED: check_pb2.FINDING_KIND_TREE_DAMAGED,
    FindingKind.CONTENT_MISSING: check_pb2.FINDING_KIND_CONTENT_MISSING,
    FindingKind.PACK_MISSING: check_pb2.FINDING_KIND_PACK_MISSING,
    FindingKind.PACK_DAMAGED: check_pb2.FINDING_KIND_PACK_DAMAGED,
    FindingKind.RECORD_DAMAGED: check_pb2.FINDING_KIND_RECORD_DAMAGED,
    FindingKind.ROW_WRONG: check_pb2.FINDING_KIND_ROW_WRONG,
    FindingKind.USAGE_WRONG: check_pb2.FINDING_KIND_USAGE_WRONG,
    FindingKind.FILE_UNKNOWN: check_pb2.FINDING_KIND_FILE_UNKNOWN,
}


class CheckServicer(check_pb2_grpc.CheckServiceServicer):
    """Serves the checks of one Ingest."""

    def __init__(self, checker: Checker, drain: Drain, idle_seconds: float) -> None:
        self._checker = checker
        self._drain = drain
        self._idle_seconds = idle_seconds

    async def CheckStore(  # type: ignore[override]  # writes to the context instead of yielding
        self, request: check_pb2.CheckStoreRequest, context: Context
    ) -> None:
        wanted = CheckRequest(
            Level.of(request.level),
            restart=request.restart,
            only_entity=check_entity(request.only_entity) if request.only_entity else "",
            max_bytes=request.stop_after_bytes,
        )
        # The operator sees nothing that is inside an entity, the names of its files neither.
        shows_paths = current_principal().role is None
        async with aclosing(self._checker.run(wanted, self._pace)) as events:
            async for event in events:
                message = event_to_proto(event, shows_paths=shows_paths)
                await write_with_deadline(context, message, self._idle_seconds)

    async def _pace(self, _bytes_read: int) -> None:
        """Go on at once, unless the server is to stop: the next call continues from there."""
        if self._drain.started:
            raise Draining("the server is about to stop; call again later, and the check continues where it was")


def event_to_proto(event: CheckEvent, *, shows_paths: bool) -> check_pb2.CheckStoreResponse:
    """Return the message for what a check tells."""
    if isinstance(event, Finding):
        return check_pb2.CheckStoreResponse(finding=_finding_to_proto(event))
    if isinstance(event, Progress):
        progress = check_pb2.CheckProgress(
            phase=event.phase,
            items_done=event.items_done,
            bytes_done=event.bytes_done,
            bytes_total=event.bytes_total,
        )
        return check_pb2.CheckStoreResponse(progress=progress)
    if isinstance(event, HurtVersion):
        hurt = check_pb2.HurtVersion(
            entity=event.entity,
            version_uid=event.version_uid.hex(),
            tree_digest=format_digest(event.tree_digest),
            tree_damaged=event.tree_damaged,
            damaged_paths=event.damaged_paths if shows_paths else (),
            damaged_files=event.damaged_files,
        )
        return check_pb2.CheckStoreResponse(hurt_version=hurt)
    return check_pb2.CheckStoreResponse(summary=_summary_to_proto(event))


def _finding_to_proto(finding: Finding) -> check_pb2.CheckFinding:
    return check_pb2.CheckFinding(
        kind=_KINDS[finding.kind],
        is_loss=finding.is_loss,
        entity=finding.entity,
        pack=str(finding.pack) if finding.pack is not None else "",
        offset=finding.offset,
        digest=format_digest(finding.digest) if finding.digest is not None else "",
        message=finding.message,
    )


def _summary_to_proto(summary: Summary) -> check_pb2.CheckSummary:
    return check_pb2.CheckSummary(
        complete=summary.complete,
        items_done=summary.items_done,
        bytes_done=summary.bytes_done,
        findings=summary.findings,
        losses=summary.losses,
        healed=summary.healed,
        hurt_versions=summary.hurt_versions,
    )
