"""The short form of the soak: a collector next to eight writers and readers, and nothing fails that may not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.soak.run import Plan, soak

SEED = int(os.environ.get("LADING_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
OPERATIONS = 3_000


@pytest.mark.slow
async def test_nothing_fails_next_to_a_collector_and_nothing_is_left_but_what_is_kept(tmp_path: Path) -> None:
    figures = await soak(Plan(tmp_path, OPERATIONS, SEED, print))
    print(figures)
    # The collector had something to do: else it would not matter that nothing failed.
    for name in ("collections", "bytes_freed", "packs_deleted", "packs_compacted", "trees_deleted", "blobs_deleted"):
        assert figures[name] > 0, name
    assert figures["failures"] == 0
