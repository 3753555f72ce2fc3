"""A server far away: what goes there and back through a slow link of many connections is whole."""

from __future__ import annotations

import random
from pathlib import Path

import lading
from tests.support.far import far_from
from tests.support.server import running_server

SEED = 23


async def test_content_comes_back_from_far_away(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    contents = {f"small/{index:03}": rng.randbytes(2000) for index in range(200)} | {"large": rng.randbytes(5 << 20)}
    for path, data in contents.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    with (
        running_server(tmp_path / "data") as server,
        far_from(server.target, round_trip_seconds=0.02, bytes_per_second=50e6) as far,
    ):
        async with lading.IngestClient(far, entity="far") as client:
            tree = (await client.upload_tree(tmp_path / "in")).tree
            await client.download_tree(tree.digest, tmp_path / "out")
    assert {path: (tmp_path / "out" / path).read_bytes() for path in contents} == contents
