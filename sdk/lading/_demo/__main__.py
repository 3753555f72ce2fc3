"""`python -m lading._demo`: the tutorial, against LADING_URL where that is set and else against a server of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from lading._demo.server import Address, own_server
from lading._demo.story import scratch_directory, tell


def main() -> None:
    """Run the tutorial."""
    with scratch_directory() as scratch:
        work = Path(scratch)
        if os.environ.get("LADING_URL"):
            asyncio.run(tell(Address(), work))
        else:
            with own_server(work / "server") as address:
                asyncio.run(tell(address, work))


if __name__ == "__main__":
    main()
