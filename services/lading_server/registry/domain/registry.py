"""Everything of the registry, put together. Every method of every part is inside the entity of its caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from lading_server.common.pins import ContentPins
from lading_server.common.settings import Settings
from lading_server.registry.domain.background import CommitRecovery, PinReleases, Repeated, RequestSweep
from lading_server.registry.domain.batches import Batches
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.collections import Collections
from lading_server.registry.domain.commits import Commits
from lading_server.registry.domain.delete_by_query import DeleteByQuery
from lading_server.registry.domain.deleting import Deleting
from lading_server.registry.domain.lineage import Lineage
from lading_server.registry.domain.lists import Lists
from lading_server.registry.domain.metrics import MetricCurves
from lading_server.registry.domain.purging import Purging
from lading_server.registry.domain.refs import Refs
from lading_server.registry.domain.retention import Retention
from lading_server.registry.domain.retention_rules import RetentionRules
from lading_server.registry.domain.retention_sweep import RetentionSweep
from lading_server.registry.domain.run_sweeper import RunSweeper
from lading_server.registry.domain.runs import Runs
from lading_server.registry.domain.undeleting import Undeleting
from lading_server.registry.domain.versions import Versions
from lading_server.registry.store.store import RegistryStore

# What was left by others is looked for this often; what this process leaves is done at once.
_PERIOD_SECONDS = 60.0


@dataclass(frozen=True)
class Registry:
    """The names half of Lading."""

    settings: Settings
    store: RegistryStore
    collections: Collections
    versions: Versions
    commits: Commits
    refs: Refs
    lists: Lists
    runs: Runs
    metrics: MetricCurves
    lineage: Lineage
    retention: Retention
    undeleting: Undeleting
    deleting: Deleting
    delete_by_query: DeleteByQuery


@asynccontextmanager
async def run_registry(settings: Settings, store: RegistryStore, pins: ContentPins) -> AsyncIterator[Registry]:
    """Run the registry over a store that stays the caller's; what a crash left is resumed in the background.

    Args:
        pins: How ingest is asked to keep trees whole.
    """
    async with AsyncExitStack() as stack:
        closing = Closing()
        releases = Repeated(
            "pin releases", PinReleases(pins, store.pending, closing).run, closing, period_seconds=_PERIOD_SECONDS
        )
        stack.push_async_callback(releases.close)
        commits = Commits(settings, store, pins, closing, releases.wake)
        stack.push_async_callback(commits.close)
        recovery = CommitRecovery(commits, store.pending)
        for name, work in (("commit recovery", recovery.run), ("request sweep", RequestSweep(store.pending).run)):
            stack.push_async_callback(Repeated(name, work, closing, period_seconds=_PERIOD_SECONDS).close)
        stack.push_async_callback(RunSweeper(settings, store).close)
        retention = Retention(RetentionRules(settings, store), store)
        if settings.retention_period_seconds:
            sweep = RetentionSweep(retention, store, closing)
            period = settings.retention_period_seconds
            stack.push_async_callback(Repeated("retention", sweep.run, closing, period_seconds=period).close)
        batches = Batches(store, closing, releases.wake)
        purging = Repeated(
            "purge", Purging(settings, store, closing, releases.wake).run, closing, period_seconds=_PERIOD_SECONDS
        )
        unfinished = Repeated("deletions", batches.run, closing, period_seconds=_PERIOD_SECONDS)
        for task in (purging, unfinished):
            stack.push_async_callback(task.close)

        def deleted(is_purged: bool) -> None:
            if is_purged:
                releases.wake()
            elif settings.undelete_seconds == 0:
                purging.wake()

        runs = Runs(settings, store)
        # Called first of all: everybody ends when it suits.
        stack.callback(closing.begin)
        yield Registry(
            settings=settings,
            store=store,
            collections=Collections(settings, store),
            versions=Versions(settings, store, deleted),
            commits=commits,
            refs=Refs(settings, store),
            lists=Lists(store, runs, settings.max_page_size),
            runs=runs,
            metrics=MetricCurves(settings, store, runs),
            lineage=Lineage(settings, store, runs),
            retention=retention,
            undeleting=Undeleting(settings, store),
            deleting=Deleting(settings, store, batches, deleted, unfinished.wake),
            delete_by_query=DeleteByQuery(store, deleted),
        )
