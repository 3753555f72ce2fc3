"""Between MaintenanceService's messages and plain values. Total: tests/unit/lading/test_maintenance_convert.py."""

from __future__ import annotations

from collections.abc import Mapping

from lading._errors import Incompatible
from lading._maintenance.models import (
    ContentState,
    EntityCollection,
    Explanation,
    GarbageExample,
    GarbageOutcome,
    GarbageProgress,
    GarbageReport,
    GarbageStep,
    HoldingPack,
    KeepingVersion,
    LastCollection,
    LostVersion,
    Reconciliation,
)
from lading._registry.convert import known, moment
from lading_proto.ingest.v1 import maintenance_pb2

STEPS: Mapping[int, GarbageStep] = {
    maintenance_pb2.COLLECTION_STEP_RECONCILE: GarbageStep.RECONCILE,
    maintenance_pb2.COLLECTION_STEP_COLLECT: GarbageStep.COLLECT,
}
OUTCOMES: Mapping[int, GarbageOutcome] = {
    maintenance_pb2.COLLECTION_OUTCOME_DONE: GarbageOutcome.DONE,
    maintenance_pb2.COLLECTION_OUTCOME_REFUSED: GarbageOutcome.REFUSED,
    maintenance_pb2.COLLECTION_OUTCOME_FAILED: GarbageOutcome.FAILED,
}


def event(message: maintenance_pb2.CollectGarbageResponse) -> GarbageProgress | EntityCollection:
    """Return what a run tells. Raises Incompatible."""
    match message.WhichOneof("event"):
        case "progress":
            step = known(STEPS, message.progress.step, "a step of the collector")
            return GarbageProgress(message.progress.name, step)
        case "collected":
            return entity_collection(message.collected)
        case other:
            raise Incompatible(f"The server tells {other!r} of a collection, which this SDK does not know.")


def entity_collection(message: maintenance_pb2.EntityCollection) -> EntityCollection:
    """Return what came of an entity."""
    return EntityCollection(
        entity=message.name,
        refused=message.refused,
        reconciled=reconciliation(message.reconciled) if message.HasField("reconciled") else None,
        report=report(message.report) if message.HasField("report") else None,
    )


def reconciliation(message: maintenance_pb2.Reconciliation) -> Reconciliation:
    """Return what came of holding pins against versions."""
    return Reconciliation(
        versions=message.versions,
        repinned=message.repinned,
        revived=message.revived,
        over_tombstones=message.over_tombstones,
        unknown_pins=message.unknown_pins,
        unknown_uids=tuple(uid.hex() for uid in message.unknown_uids),
        released_pins=message.released_pins,
        lost_versions=message.lost_versions,
        lost=tuple(LostVersion(one.uid.hex(), one.tree_digest, one.message) for one in message.lost),
    )


def report(message: maintenance_pb2.CollectionReport) -> GarbageReport:
    """Return what was collected."""
    return GarbageReport(
        trees_condemned=message.trees_condemned,
        blobs_condemned=message.blobs_condemned,
        packs_condemned=message.packs_condemned,
        bytes_condemned=message.bytes_condemned,
        packs_compacted=message.packs_compacted,
        bytes_compacted=message.bytes_compacted,
        packs_deleted=message.packs_deleted,
        blobs_deleted=message.blobs_deleted,
        trees_deleted=message.trees_deleted,
        bytes_freed=message.bytes_freed,
        packs_in_trash=message.packs_in_trash,
        bytes_in_trash=message.bytes_in_trash,
        unreadable_packs=tuple(message.unreadable_packs),
        skipped=tuple(message.skipped),
        examples=tuple(GarbageExample(one.kind, one.id, one.size_bytes, one.why) for one in message.examples),
    )


def last_collection(message: maintenance_pb2.GetLastCollectionResponse) -> LastCollection:
    """Return what the last run came to."""
    never = message.outcome == maintenance_pb2.COLLECTION_OUTCOME_UNSPECIFIED
    return LastCollection(
        outcome=None if never else known(OUTCOMES, message.outcome, "the end of a collection"),
        message=message.message,
        began_at=moment(message.began_at) if message.HasField("began_at") else None,
        ended_at=moment(message.ended_at) if message.HasField("ended_at") else None,
        entities=message.entities,
        refused_entities=message.refused_entities,
        bytes_condemned=message.bytes_condemned,
        bytes_freed=message.bytes_freed,
        bytes_in_trash=message.bytes_in_trash,
        is_running=message.is_running,
    )


def explanation(
    message: maintenance_pb2.ExplainContentResponse, digest: str, names: Mapping[bytes, str]
) -> Explanation:
    """Return what keeps content; `names` has the references of versions that were asked for."""
    return Explanation(
        digest=digest,
        states=tuple(ContentState(one.kind, one.state, one.size_bytes) for one in message.states),
        packs=tuple(HoldingPack(one.id, one.state, one.size_bytes) for one in message.packs),
        blobs=tuple(message.blob_digests),
        trees=tuple(message.tree_digests),
        versions=tuple(KeepingVersion(uid.hex(), names.get(uid, "")) for uid in message.version_uids),
        upload_ids=tuple(message.upload_ids),
        session_count=message.session_count,
        goes_at=moment(message.goes_at) if message.HasField("goes_at") else None,
        unreadable_pages=tuple(message.unreadable_pages),
    )
