"""Stores and fetches files with the running interpreter's SDK, against another's server: `make test-protobufs`.

python tests/support/sdk_smoke.py SERVER_PYTHON
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import lading


async def round_trip(target: str, work: Path) -> None:
    source = work / "source"
    (source / "sub").mkdir(parents=True)
    (source / "empty").touch()
    (source / "sub/large.bin").write_bytes(bytes(range(256)) * 20_000)
    async with lading.IngestClient(target, entity="smoke") as client:
        stored = await client.upload_tree(source)
        again = await client.upload_tree(source)
        assert again.tree == stored.tree
        assert again.transfer.bytes_sent == 0
        await client.download_tree(stored.tree.digest, work / "out")
        for path in ("empty", "sub/large.bin"):
            assert (work / "out" / path).read_bytes() == (source / path).read_bytes()
        try:
            await client.get_tree("b3:" + "0" * 64)
        except lading.NotFound as error:
            assert "tree" in str(error)
        else:
            raise AssertionError("a tree that is not there was found")


async def names(target: str, work: Path) -> None:
    """One call of each shape that the registry has."""
    async with lading.Client(target, entity="smoke", project="tests") as client:
        put = await client.put(work / "source", "files", type="dataset", aliases=["best"], metadata={"size": 1.5})
        assert (await client.version("files:best")).metadata == {"size": 1.5}
        moved = await client.set_aliases(put.version, ["good"], remove=["best"], expected={"best": 0, "good": None})
        assert moved.aliases == ("good", "latest")
        link = await client.link(moved, "Files", ["staging"])
        assert (await client.update_version(moved, description="")).description == ""
        assert {version.uid async for version in client.search("type=dataset")} == {put.version.uid, link.uid}
        assert (await client.lineage(link)).root_uid == put.version.uid
        assert "version.linked" in {event.kind async for event in client.events(version=link)}
        assert [run async for run in client.runs()] == []
        async with link.open("sub/large.bin") as file:
            await file.seek(-3, 2)
            assert await file.read() == b"\xfd\xfe\xff"
        assert (await link.verify(work / "out")).ok


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LADING_CACHE_DIR"] = f"{scratch}/cache"
        command = [sys.argv[1], "-m", "lading_server", "--data", f"{scratch}/data", "--listen", "127.0.0.1:0"]
        command += ["--auth", "none"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None
                target = server.stdout.readline().partition(" is ready at ")[2].split()[0]
                asyncio.run(round_trip(target, Path(scratch)))
                asyncio.run(names(target, Path(scratch)))
            finally:
                server.terminate()
    print(f"the SDK works with protobuf {version('protobuf')} and grpcio {version('grpcio')}")


if __name__ == "__main__":
    main()
