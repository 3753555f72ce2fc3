"""The project, as a user has it: `Client.put` and `Version.download`, keys on, in a warm process.

Unlike the peers' programs it runs in the project's own environment.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import lading
from tests.bench.content import anonymous_bytes
from tests.bench.peers.talk import serve
from tests.support.server import running_server


def main() -> None:
    work, numbers = Path(sys.argv[1]), itertools.count()
    # Neither remembered digests nor kept blobs: every file is read, sent and fetched.
    os.environ["LADING_CACHE_DIR"] = ""
    with running_server(work / "data", auth="keys") as server, asyncio.Runner() as runner:
        client = lading.Client(server.target, api_key=server.api_key)

        def up(directory: str) -> str:
            name = f"bench-{next(numbers)}"
            version = runner.run(client.put(directory, name, type="dataset")).version
            return version.reference

        def down(reference: str, out: str) -> None:
            runner.run(_get(client, reference, out))

        def memory() -> dict[str, Any]:
            return {"client": anonymous_bytes(os.getpid()), "server": anonymous_bytes(server.pid)}

        serve(up, down, {"memory": memory})
        runner.run(client.close())


async def _get(client: lading.Client, reference: str, out: str) -> None:
    await (await client.version(reference)).download(out)


if __name__ == "__main__":
    main()
