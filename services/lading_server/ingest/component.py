"""Ingest as a part of a server: opened in order, recovered, and closed so that nothing acknowledged is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from lading_proto.ingest.v1 import (
    check_pb2,
    check_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    maintenance_pb2,
    maintenance_pb2_grpc,
    pins_pb2,
    pins_pb2_grpc,
)
from lading_server.common.drain import Drain
from lading_server.common.kept_versions import KeptVersions
from lading_server.common.metrics import Metrics
from lading_server.common.pins import ContentPins
from lading_server.common.settings import Settings
from lading_server.ingest.domain.check import Checker
from lading_server.ingest.domain.check_daily import DailyCheck
from lading_server.ingest.domain.collector import Collector
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.content import ContentReader
from lading_server.ingest.domain.explain import Explainer
from lading_server.ingest.domain.garbage import Garbage
from lading_server.ingest.domain.garbage_schedule import GarbageSchedule
from lading_server.ingest.domain.housekeeping import Housekeeping
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.pack_pool import PackPool
from lading_server.ingest.domain.pins import Pins
from lading_server.ingest.domain.quotas import Quotas
from lading_server.ingest.domain.recipes import SpanReader
from lading_server.ingest.domain.reconcile import Reconciler
from lading_server.ingest.domain.records import RecordReader
from lading_server.ingest.domain.startup import recover_packs
from lading_server.ingest.domain.tree_reader import TreeReader
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.notes import TRASH_NOTE
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.local_pins import LocalPins
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.registry_versions import NoRegistryVersions
from lading_server.ingest.service.bulk import add_bulk_handlers
from lading_server.ingest.service.check import CheckServicer
from lading_server.ingest.service.maintenance import MaintenanceServicer
from lading_server.ingest.service.pins import PinServicer
from lading_server.ingest.service.servicer import IngestServicer

# Lapsed rows cost only space, so looking for them once a minute is often enough.
_SWEEP_SECONDS = 60.0


class IngestComponent:
    """What a server adds to itself to serve ingest."""

    def __init__(
        self,
        ingest: Ingest,
        drain: Drain,
        metrics: Metrics,
        *,
        serves_pins: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`serves_pins`: whether the registry is another process. `clock` tells seconds since 1970 to the collector."""
        self._ingest = ingest
        self._drain = drain
        self._metrics = metrics
        self._serves_pins = serves_pins
        self._clock = clock
        self._garbage: Garbage | None = None

    @property
    def service_names(self) -> Sequence[str]:
        """The full names of its services."""
        names = [
            ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name,
            check_pb2.DESCRIPTOR.services_by_name["CheckService"].full_name,
        ]
        if self._garbage is not None:
            names.append(maintenance_pb2.DESCRIPTOR.services_by_name["MaintenanceService"].full_name)
        return [*names, pins_pb2.DESCRIPTOR.services_by_name["PinService"].full_name] if self._serves_pins else names

    @property
    def pins(self) -> ContentPins:
        """What the registry asks, where it is in the same process."""
        return LocalPins(self._ingest.pins)

    @asynccontextmanager
    async def collecting(self, versions: KeptVersions) -> AsyncIterator[None]:
        """Collect garbage for the length of the block: on request, and by itself as the settings say.

        Args:
            versions: Where the registry is asked which versions it keeps.
        """
        ingest = self._ingest
        collector = Collector(
            ingest.index, ingest.storage, ingest.workers, ingest.pool, ingest.settings, clock=self._clock
        )
        reconciler = Reconciler(versions, ingest.pins, ingest.index.pins, collector.revive)
        self._garbage = Garbage(ingest.index, versions, reconciler, collector, self._drain, self._metrics, self._clock)
        async with AsyncExitStack() as stack:
            if ingest.settings.gc_period_seconds and not isinstance(versions, NoRegistryVersions):
                schedule = GarbageSchedule(self._garbage, self._drain, ingest.settings.gc_period_seconds)
                stack.push_async_callback(schedule.close)
            yield

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register its services."""
        servicer = IngestServicer(self._ingest, self._drain)
        add_bulk_handlers(servicer, server)
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server)
        idle_seconds = self._ingest.settings.stream_idle_seconds
        check_pb2_grpc.add_CheckServiceServicer_to_server(
            CheckServicer(self._ingest.checker, self._drain, idle_seconds), server
        )
        if self._garbage is not None:
            ingest = self._ingest
            explainer = Explainer(ingest.index, ingest.storage, ingest.workers, ingest.settings, clock=self._clock)
            maintenance = MaintenanceServicer(self._garbage, explainer, ingest.settings.stream_idle_seconds)
            maintenance_pb2_grpc.add_MaintenanceServiceServicer_to_server(maintenance, server)
        if self._serves_pins:
            pins_pb2_grpc.add_PinServiceServicer_to_server(PinServicer(self._ingest.pins), server)


@asynccontextmanager
async def open_ingest(settings: Settings, drain: Drain, metrics: Metrics) -> AsyncIterator[IngestComponent]:
    """Open ingest over the data directory of the settings.

    Raises:
        StoreLocked: Another server has the directory.
        OSError: The directory cannot be made or read.
    """
    data = Path(settings.data)
    async with AsyncExitStack() as stack:
        storage = LocalPackStorage(data)
        stack.callback(storage.close)
        url = settings.database_url or f"sqlite+aiosqlite:///{data.absolute() / 'ingest.db'}"
        index = await ContentIndex.open(url)
        stack.push_async_callback(index.close)
        ingest = await stack.enter_async_context(run_ingest(settings, index, storage, metrics))
        yield IngestComponent(ingest, drain, metrics, serves_pins=settings.services == "ingest")


@asynccontextmanager
async def run_ingest(
    settings: Settings, index: ContentIndex, storage: PackStorage, metrics: Metrics
) -> AsyncIterator[Ingest]:
    """Recover what a crash left, then run ingest over an index and a storage that stay the caller's."""
    async with AsyncExitStack() as stack:
        workers = Workers(settings.threads)
        stack.callback(workers.close)
        epoch = await index.begin_epoch()
        # For whoever restores a backup of this index.
        await index.notes.write(TRASH_NOTE, {"trash_seconds": settings.trash_seconds})
        losses = Losses(index, storage, workers, metrics.content_lost)
        stack.push_async_callback(losses.close)
        await recover_packs(index, storage, workers, losses)
        records = RecordReader(index.chunks, storage, workers, losses.report)
        committer = GroupCommitter(
            index.recorder,
            workers,
            group_bytes=settings.group_commit_bytes,
            linger_seconds=settings.group_commit_milliseconds / 1000,
            on_group=metrics.group_committed,
        )
        pool = PackPool(
            storage,
            index.packs,
            committer,
            workers,
            store_id=epoch.store_id,
            writer_epoch=epoch.number,
            target_bytes=settings.pack_target_bytes,
            min_free_bytes=settings.min_free_bytes,
        )
        # In reverse: what waits is committed, then packs are sealed.
        stack.push_async_callback(pool.close)
        stack.push_async_callback(committer.close)
        housekeeping = Housekeeping(
            index, period_seconds=_SWEEP_SECONDS, upload_idle_seconds=settings.upload_idle_seconds
        )
        stack.push_async_callback(housekeeping.close)
        spans, trees = SpanReader(records, workers), TreeReader(index, records, workers)
        checker = Checker(index, storage, workers, losses, spans, trees, metrics)
        if settings.check_bytes_per_day:
            daily = DailyCheck(checker, index.notes, settings.check_bytes_per_day)
            stack.push_async_callback(daily.close)
        yield Ingest(
            settings=settings,
            index=index,
            storage=storage,
            workers=workers,
            committer=committer,
            pool=pool,
            spans=spans,
            content=ContentReader(index, records),
            trees=trees,
            quotas=Quotas(index.usage, committer.flush),
            pins=Pins(index, records, workers, settings.max_page_size),
            losses=losses,
            checker=checker,
        )
