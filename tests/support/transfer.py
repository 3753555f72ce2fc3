"""One upload or download by the SDK in a process of its own, so that its memory is the SDK's and not the test's.

python -m tests.support.transfer up TARGET SOURCE
python -m tests.support.transfer down TARGET TREE_DIGEST ROOT

Prints one JSON object: the tree's digest, the bytes that travelled, and the process's peak of resident memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import lading
from tests.support.server import resident_bytes

ENTITY = "transfer"


def transfer_process(*arguments: str) -> dict[str, Any]:
    """Run this module; return what it printed."""
    command = [sys.executable, "-m", "tests.support.transfer", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def _transfer(direction: str, target: str, *rest: str) -> tuple[str, int]:
    async with lading.IngestClient(target, entity=ENTITY) as client:
        if direction == "up":
            uploaded = await client.upload_tree(rest[0])
            return uploaded.tree.digest, uploaded.transfer.bytes_sent
        downloaded = await client.download_tree(rest[0], rest[1])
        return rest[0], downloaded.transfer.bytes_sent


def main() -> None:
    digest, sent_bytes = asyncio.run(_transfer(*sys.argv[1:]))
    _, peak_bytes = resident_bytes(os.getpid())
    print(json.dumps({"digest": digest, "sent_bytes": sent_bytes, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main()
