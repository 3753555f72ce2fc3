"""What a comparison of two large trees reads: the pages that differ, and no others."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest

from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.tree_reader import TreeReader
from tests.support.content import opened_ingest, put_tree

FILES = 20_000
SEED = 5


async def _compared(ingest: Ingest, base: bytes, target: bytes) -> tuple[list[str], int]:
    """Return the paths that differ, and how many pages were read to find them."""
    with mock.patch.object(TreeReader, "load", autospec=True, side_effect=TreeReader.load) as load:
        changes, token = await ingest.trees.diff_page(
            "acme", base, target, page_size=1000, page_token="", max_bytes=1 << 20
        )
    assert token == ""
    return [change.path for change in changes], load.call_count


def _tree(changed: Iterable[str] = (), without: Iterable[str] = ()) -> dict[str, list[bytes]]:
    paths = [f"d{index // 100:03}/{index:05}" for index in range(FILES)]
    new, gone = set(changed), set(without)
    return {path: [b"new" if path in new else b"old"] for path in paths if path not in gone}


@pytest.mark.parametrize("where", [[0], [FILES // 2], [FILES - 1], [0, 1, FILES // 2, FILES - 1]])
async def test_only_pages_that_differ_are_read(tmp_path: Path, where: list[int]) -> None:
    paths = [f"d{index // 100:03}/{index:05}" for index in where]
    async with opened_ingest("sqlite", tmp_path) as ingest:
        base, target = await put_tree(ingest, _tree()), await put_tree(ingest, _tree(changed=paths))
        found, pages = await _compared(ingest, base, target)
    assert found == paths
    # One of each tree for each change, of about 25 that each tree has.
    assert pages <= 2 * len(where)


async def test_paths_that_are_in_one_tree_alone_are_found_with_few_pages(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    gone = sorted(rng.sample(list(_tree()), 3))
    print(f"seed {SEED}: without {gone}")
    async with opened_ingest("sqlite", tmp_path) as ingest:
        base, target = await put_tree(ingest, _tree()), await put_tree(ingest, _tree(without=gone))
        assert (await _compared(ingest, base, target))[0] == gone
        found, pages = await _compared(ingest, target, base)
    assert found == gone
    # Where a page's last path goes, the page goes on to the next border.
    assert pages <= 4 * len(gone)
