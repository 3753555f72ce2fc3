"""Everything of the registry, put together. Every method of every part is inside the entity of its caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from lading_server.common.pins import ContentPins
from lading_server.common.settings import Settings
from lading_server.registry.domain.background import CommitRecovery, PinReleases, Repeated, RequestSweep
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.collections import Collections
from lading_server.registry.domain.commits import Commits
from lading_server.registry.domain.lineage import Lineage
from lading_server.registry.domain.lists import Lists
from lading_server.registry.domain.metrics import MetricCurves
from lading_server.registry.domain.refs import Refs
from lading_server.registry.domain.run_sweeper import RunSweeper
from lading_server.registry.domain.runs import Runs
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
        runs = Runs(settings, store)
        # Called first of all: everybody ends when it suits.
        stack.callback(closing.begin)
        yield Registry(
            settings=settings,
            store=store,
            collections=Collections(settings, store),
            versions=Versions(settings, store),
            commits=commits,
            refs=Refs(settings, store),
            lists=Lists(store, runs, settings.max_page_size),
            runs=runs,
            metrics=MetricCurves(settings, store, runs),
            lineage=Lineage(settings, store, runs),
        )
