"""What the client costs where nothing travels: a directory that did not change."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from unittest import mock

import lading
from lading._digest_cache import RACY_NS
from tests.support.server import running_server

_ROUNDS = 5


async def unchanged_seconds(source: Path, scratch: Path) -> float:
    """Return how long it takes to put a directory again whose digests are remembered; the best of a few."""
    newest_ns = max(path.stat().st_ctime_ns for path in source.rglob("*"))
    # Inputs that were made just now are not remembered yet.
    await asyncio.sleep(max(0, newest_ns + RACY_NS - time.time_ns()) / 1e9)
    with (
        running_server(scratch / "unchanged/data") as server,
        mock.patch.dict(os.environ, LADING_CACHE_DIR=str(scratch / "unchanged/cache")),
    ):
        async with lading.Client(server.target, entity="bench") as client:
            await client.put(source, "unchanged", type="dataset")
            seconds = []
            for _ in range(_ROUNDS):
                began = time.perf_counter()
                await client.put(source, "unchanged", type="dataset")
                seconds.append(time.perf_counter() - began)
            return min(seconds)
