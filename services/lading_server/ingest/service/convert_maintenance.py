"""Messages about garbage and what is none, and the domain's values."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from lading_format.digest import format_digest
from lading_proto.ingest.v1 import maintenance_pb2
from lading_server.common.errors import BlobNotFound
from lading_server.ingest.domain.collector import CollectionReport
from lading_server.ingest.domain.explain import Explanation
from lading_server.ingest.domain.garbage import EntityOutcome, LastRun, Outcome, Progress, Step
from lading_server.ingest.domain.reconcile import NAMED, Reconciliation

STEPS = {
    Step.RECONCILE: maintenance_pb2.COLLECTION_STEP_RECONCILE,
    Step.COLLECT: maintenance_pb2.COLLECTION_STEP_COLLECT,
}
OUTCOMES = {
    Outcome.DONE: maintenance_pb2.COLLECTION_OUTCOME_DONE,
    Outcome.REFUSED: maintenance_pb2.COLLECTION_OUTCOME_REFUSED,
    Outcome.FAILED: maintenance_pb2.COLLECTION_OUTCOME_FAILED,
}


def event_to_proto(event: Progress | EntityOutcome) -> maintenance_pb2.CollectGarbageResponse:
    if isinstance(event, Progress):
        progress = maintenance_pb2.CollectionProgress(name=event.entity, step=STEPS[event.step])
        return maintenance_pb2.CollectGarbageResponse(progress=progress)
    collected = maintenance_pb2.EntityCollection(name=event.entity, refused=event.refused)
    if event.reconciled is not None:
        collected.reconciled.CopyFrom(_reconciliation_to_proto(event.reconciled))
    if event.report is not None:
        collected.report.CopyFrom(_report_to_proto(event.report))
    return maintenance_pb2.CollectGarbageResponse(collected=collected)


def last_run_to_proto(last: LastRun | None, *, is_running: bool) -> maintenance_pb2.GetLastCollectionResponse:
    if last is None:
        return maintenance_pb2.GetLastCollectionResponse(is_running=is_running)
    return maintenance_pb2.GetLastCollectionResponse(
        outcome=OUTCOMES[Outcome(last.outcome)],
        message=last.message,
        began_at=timestamp_to_proto(last.began_at_ms),
        ended_at=timestamp_to_proto(last.ended_at_ms),
        entities=last.entities,
        refused_entities=last.refused_entities,
        bytes_condemned=last.bytes_condemned,
        bytes_freed=last.bytes_freed,
        bytes_in_trash=last.bytes_in_trash,
        is_running=is_running,
    )


def explanation_to_proto(told: Explanation) -> maintenance_pb2.ExplainContentResponse:
    """Raises BlobNotFound where there is nothing to be explained."""
    kinds = [("tree", told.tree), ("blob", told.blob)]
    states = [
        maintenance_pb2.ContentState(kind=kind, state=one.state, size_bytes=one.size_bytes)
        for kind, one in kinds
        if one is not None
    ]
    if told.is_chunk:
        states.append(maintenance_pb2.ContentState(kind="chunk"))
    if not states:
        digest = format_digest(told.digest)
        raise BlobNotFound(
            f"the entity has no tree, blob or chunk {digest}, in the trash neither; check the digest and the entity",
            digest=digest,
        )
    return maintenance_pb2.ExplainContentResponse(
        states=states,
        packs=[
            maintenance_pb2.HoldingPack(id=str(one.pack), state=one.state, size_bytes=one.size_bytes)
            for one in told.packs
        ],
        blob_digests=[format_digest(digest) for digest in told.blobs],
        tree_digests=[format_digest(digest) for digest in told.trees],
        version_uids=told.version_uids,
        upload_ids=told.upload_ids,
        session_count=told.session_count,
        goes_at=timestamp_to_proto(told.goes_at_ms) if told.goes_at_ms is not None else None,
        unreadable_pages=[format_digest(digest) for digest in told.unreadable_pages],
    )


def timestamp_to_proto(milliseconds: int) -> Timestamp:
    """Return a time that is kept in milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def _reconciliation_to_proto(found: Reconciliation) -> maintenance_pb2.Reconciliation:
    return maintenance_pb2.Reconciliation(
        versions=found.versions,
        repinned=found.repinned,
        revived=found.revived,
        over_tombstones=found.over_tombstones,
        unknown_pins=found.unknown_pins,
        unknown_uids=found.unknown,
        released_pins=found.released_pins,
        lost_versions=found.lost_versions,
        lost=[
            maintenance_pb2.LostVersion(uid=one.uid, tree_digest=format_digest(one.tree_digest), message=one.message)
            for one in found.lost
        ],
    )


def _report_to_proto(report: CollectionReport) -> maintenance_pb2.CollectionReport:
    return maintenance_pb2.CollectionReport(
        trees_condemned=report.trees_condemned,
        blobs_condemned=report.blobs_condemned,
        packs_condemned=report.packs_condemned,
        bytes_condemned=report.bytes_condemned,
        packs_compacted=report.packs_compacted,
        bytes_compacted=report.bytes_compacted,
        packs_deleted=report.packs_deleted,
        blobs_deleted=report.blobs_deleted,
        trees_deleted=report.trees_deleted,
        bytes_freed=report.bytes_freed,
        packs_in_trash=report.packs_in_trash,
        bytes_in_trash=report.bytes_in_trash,
        unreadable_packs=report.unreadable_packs[:NAMED],
        skipped=report.skipped[:NAMED],
        examples=[
            maintenance_pb2.GarbageExample(kind=kind, id=name, size_bytes=size_bytes, why=why)
            for kind, name, size_bytes, why in report.examples[:NAMED]
        ],
    )
