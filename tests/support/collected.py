"""All garbage collected, by the operator, until nothing more goes."""

from __future__ import annotations

import asyncio

import lading

# Leases lapse within this, and then a few runs are enough: one to condemn, one to delete, one for what was copied.
PATIENCE_SECONDS = 120.0
# A lease keeps content for as long as a session lasts; only when no run of so many in a row finds anything is it all.
_QUIET_RUNS = 3


async def collect(operator: lading.Client, *, dry_run: bool = False) -> lading.GarbageReport:
    """Collect once; return what went of the one entity."""
    (done,) = [
        event async for event in operator.collect_garbage(dry_run=dry_run) if isinstance(event, lading.EntityCollection)
    ]
    assert not done.refused, done.refused
    assert done.report is not None
    assert (done.report.skipped, done.report.unreadable_packs) == ((), ()), done.report
    return done.report


def is_quiet(report: lading.GarbageReport) -> bool:
    """Whether a run found nothing to do."""
    went = (
        report.trees_condemned,
        report.blobs_condemned,
        report.packs_condemned,
        report.packs_compacted,
        report.packs_deleted,
        report.blobs_deleted,
        report.trees_deleted,
        report.packs_in_trash,
    )
    return not any(went)


async def check_clean(operator: lading.Client) -> None:
    """Raise unless a check of every digest finds nothing."""
    told = [event async for event in operator.check(4, restart=True) if not isinstance(event, lading.CheckProgress)]
    summary = told.pop()
    assert isinstance(summary, lading.CheckSummary)
    assert told == [], told
    assert summary.complete, summary


async def collect_everything(operator: lading.Client, session_seconds: float = 1.0) -> None:
    """Collect until nothing goes any more, all leases having lapsed. Nobody uploads meanwhile."""
    loop = asyncio.get_running_loop()
    began = quiet_since = loop.time()
    quiet = 0
    while quiet < _QUIET_RUNS or loop.time() - quiet_since <= session_seconds:
        assert loop.time() - began < PATIENCE_SECONDS, "garbage goes and goes"
        if is_quiet(await collect(operator)):
            quiet += 1
        else:
            quiet, quiet_since = 0, loop.time()
