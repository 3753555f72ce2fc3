"""A pack has a bad byte and its server is killed before the pack is sealed: what is bad is lost, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import lading
from lading_format.digest import blake3_digest
from tests.support.server import running_server

FILES = {f"{number}": random.Random(number).randbytes(10_000) for number in range(20)}
BAD = "7"


async def stored(address: str, source: Path) -> str:
    async with lading.IngestClient(address, entity="acme") as client:
        return (await client.upload_tree(source)).tree.digest


async def content_of(client: lading.IngestClient, tree: str, path: str) -> bytes:
    return b"".join([part async for part in client.read_file(tree=tree, path=path)])


async def test_a_bad_byte_and_a_kill_cost_the_file_that_has_the_byte(tmp_path: Path) -> None:
    source, data = tmp_path / "in", tmp_path / "data"
    source.mkdir()
    for name, content in FILES.items():
        (source / name).write_bytes(content)
    with running_server(data) as server:
        tree = await stored(server.target, source)
        server.kill()
    (pack,) = [path for path in (data / "packs").rglob("*.pack") if FILES[BAD] in path.read_bytes()]
    bytes_of_pack = bytearray(pack.read_bytes())
    bytes_of_pack[bytes_of_pack.index(FILES[BAD]) + 5000] ^= 1
    pack.write_bytes(bytes_of_pack)
    with running_server(data) as server:
        async with lading.IngestClient(server.target, entity="acme") as client:
            for name, expected in FILES.items():
                if name == BAD:
                    with pytest.raises(lading.IntegrityError, match="store the same files again"):
                        await content_of(client, tree, name)
                else:
                    assert await content_of(client, tree, name) == expected
            assert "what is whole stays" in server.log_text()
            async with lading.Client(server.target, entity="acme", project="any") as operator:
                found = [event async for event in operator.check(4) if isinstance(event, lading.CheckFinding)]
            assert {finding.digest for finding in found} <= {f"b3:{blake3_digest(FILES[BAD]).hex()}", tree}
            again = await client.upload_tree(source)
            assert again.transfer.bytes_sent == len(FILES[BAD])
            assert await content_of(client, tree, BAD) == FILES[BAD]
