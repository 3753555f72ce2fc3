"""The servers, the clients, the collector next to them, and the look at what is left."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lading
from tests.soak.calls import Call
from tests.soak.figures import Collection, Figures, shown
from tests.soak.worker import COLLECTIONS
from tests.support import pieces
from tests.support.collected import check_clean, collect, collect_everything
from tests.support.killable_pair import INGEST, Pair, pair_in
from tests.support.leftovers import disk_bytes, leftovers
from tests.support.server import resident_bytes
from tests.support.settling import PATIENCE_SECONDS, check_pins

PROCESSES = 4
COLLECT_EVERY_SECONDS = 2.0
_SESSION_SECONDS = 3.0
_INGEST = (
    *("--pack-target-bytes", str(4 << 20), "--gc-period-seconds", "0"),
    *("--trash-seconds", "1", "--session-ttl-seconds", f"{_SESSION_SECONDS:g}"),
)
_REGISTRY = ("--undelete-seconds", "10")


@dataclass(frozen=True)
class Plan:
    """What to do, and where."""

    directory: Path
    operations: int
    seed: int
    tell: Callable[[str], None]


class Clients:
    """The processes of the clients, and the lines that they wrote so far."""

    def __init__(self, plan: Plan, pair: Pair, figures: Figures) -> None:
        self._figures = figures
        self._logs = {plan.directory / f"client{number}.calls": 0 for number in range(PROCESSES)}
        environment = os.environ | {"LADING_API_KEY": pair.admin_key}
        command = [sys.executable, "-m", "tests.soak.worker"]
        share = -(-plan.operations // PROCESSES)
        self._processes = [
            subprocess.Popen(
                [*command, pair.url, str(plan.directory), log.stem, str(plan.seed), str(share)],
                env=environment,
            )
            for log in self._logs
        ]

    @property
    def are_working(self) -> bool:
        return any(process.poll() is None for process in self._processes)

    def read(self) -> None:
        """Count what they wrote since the last time."""
        for log, at in self._logs.items():
            if log.exists():
                with log.open("rb") as file:
                    file.seek(at)
                    whole = file.read().rpartition(b"\n")[0]
                self._logs[log] = at + len(whole) + (1 if whole else 0)
                for line in whole.splitlines():
                    self._figures.add(Call.from_json(json.loads(line)))

    def codes(self) -> list[int | None]:
        """How they ended."""
        return [process.wait() for process in self._processes]

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


async def soak(plan: Plan) -> dict[str, Any]:
    """Run the whole of it; return the figures.

    Raises AssertionError when anything failed that may not fail, was lost, or is left though nothing keeps it.
    """
    plan.tell(f"seed {plan.seed}, {plan.operations:,} operations by {PROCESSES} clients")
    figures = Figures()
    with pair_in(plan.directory) as pair:
        pair.start(*_INGEST, registry_flags=_REGISTRY)
        began_at = time.monotonic()
        clients = Clients(plan, pair, figures)
        try:
            async with pair.client(pair.operator_key) as operator:
                await _work(plan, clients, operator, figures)
        finally:
            clients.close()
        clients.read()
        seconds = time.monotonic() - began_at
        memory = {f"{name}_peak_bytes": resident_bytes(server.pid)[1] for name, server in pair.servers.items()}
        found = {"seed": plan.seed, "seconds": round(seconds, 1), **figures.to_json(), **memory}
        found |= await _settled(plan, pair, figures)
        return found


async def _work(plan: Plan, clients: Clients, operator: lading.Client, figures: Figures) -> None:
    """Collect every two seconds until all clients have ended."""
    told_at = time.monotonic()
    while clients.are_working:
        turn = asyncio.create_task(asyncio.sleep(COLLECT_EVERY_SECONDS))
        began_at = time.time()
        report = await collect(operator)
        figures.collections.append(Collection(began_at, time.time(), report))
        await asyncio.to_thread(clients.read)
        assert not figures.undocumented, shown(figures.undocumented)
        if time.monotonic() - told_at >= 30:
            told_at = time.monotonic()
            plan.tell(
                f"{figures.operations:,} operations, {len(figures.collections):,} collections, "
                f"{sum(each.report.bytes_freed for each in figures.collections):,} bytes freed"
            )
        await turn
    assert not any(clients.codes()), f"clients ended with {clients.codes()}"


async def _settled(plan: Plan, pair: Pair, figures: Figures) -> dict[str, Any]:
    """Look at what there is, when nobody works any more."""
    assert not figures.undocumented, shown(figures.undocumented)
    assert not figures.wrongly_gone(), shown(figures.wrongly_gone())
    assert figures.operations >= plan.operations, f"{figures.operations:,} operations"
    async with pair.client() as client:
        await _all_purged(client)
        kept, trees = await _kept(client, pair, figures)
    await check_pins(pair, kept)
    # Packs that are open are not collected, and a stop seals them.
    before_bytes = disk_bytes(pair.data(INGEST))
    pair.stop()
    pair.start("--gc-period-seconds", "0", "--trash-seconds", "0", "--session-ttl-seconds", "1")
    async with pair.client(pair.operator_key) as operator:
        await check_clean(operator)
        await collect_everything(operator, _SESSION_SECONDS)
        await check_clean(operator)
    pair.stop()
    left = leftovers(pair.data(INGEST), trees)
    assert not left, "\n".join(left)
    return {
        "versions_left": len(kept),
        "disk_bytes_at_the_end": before_bytes,
        "disk_bytes_after_a_full_collection": disk_bytes(pair.data(INGEST)),
        "kept_bytes": sum(len(pieces.content(piece)) for piece in {piece for some in trees.values() for piece in some}),
    }


async def _all_purged(client: lading.Client) -> None:
    """Return when what was deleted is purged, which the registry does by itself."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for collection in COLLECTIONS:
        while [version async for version in client.versions(collection, deleted=True)]:
            assert time.monotonic() < deadline, "what was deleted is not purged"


async def _kept(
    client: lading.Client, pair: Pair, figures: Figures
) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Return the versions that are kept, their digests, and the pieces of these. Reads every one back."""
    kept: dict[str, str] = {}
    trees: dict[str, tuple[int, ...]] = {}
    there: set[str] = set()
    async with lading.IngestClient(pair.ingest_address, entity="default", api_key=pair.admin_key) as content:
        for collection in COLLECTIONS:
            async for version in client.versions(collection):
                kept[version.uid] = version.digest
                there.add(version.name)
        for digest in set(kept.values()):
            listed = [entry async for entry in content.list_tree(digest)]
            trees[digest] = tuple(pieces.piece_at(entry.path) for entry in listed)
            assert pieces.tree_digest(trees[digest]) == digest
            for entry in listed:
                data = b"".join([part async for part in content.read_file(entry.digest)])
                assert data == pieces.content(pieces.piece_at(entry.path)), f"{entry.path} of {digest} is wrong"
    lost = figures.must_be_there() - there
    assert not lost, f"acknowledged, never deleted, and not there: {sorted(lost)}"
    return kept, trees
