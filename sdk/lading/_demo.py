"""`make demo`: real images into a store and back, with a server of the demo's own. Needs `lading[demo]`."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lading

_READY = " is ready at "


def main() -> None:
    """Run the demo with a server that is started for it."""
    with tempfile.TemporaryDirectory(prefix="lading-demo-") as scratch:
        work = Path(scratch)
        with _server(work / "server") as target:
            asyncio.run(_story(target, work))


async def _story(target: str, work: Path) -> None:
    images = work / "digits"
    count = _write_digits(images)
    _say(f"wrote {count:,} handwritten digits as PNG files, a directory a class, with an index.csv")
    async with lading.IngestClient(target, entity="demo") as client:
        began = time.perf_counter()
        first = await client.upload_tree(images)
        _say(f"stored them as {first.tree.digest}: {_sent(first)} in {time.perf_counter() - began:.2f} s")

        again = await client.upload_tree(images)
        _say(f"stored the same directory again: {_sent(again)}, the same tree: {again.tree == first.tree}")

        changed = _relabel(images)
        second = await client.upload_tree(images)
        _say(f"moved {changed} images to another class: {_sent(second)}")
        changes = [change async for change in client.diff_trees(first.tree.digest, second.tree.digest)]
        for change in changes[:3]:
            _say(f"  {change.kind.value:8} {change.path}")
        _say(f"  … {len(changes)} paths differ between the two")

        listed = [entry.path async for entry in client.list_tree(second.tree.digest, fold_directories=True)]
        _say(f"the tree holds {', '.join(listed)}")

        began = time.perf_counter()
        out = work / "fetched"
        await client.download_tree(second.tree.digest, out)
        _say(f"fetched and verified {second.tree.file_count:,} files in {time.perf_counter() - began:.2f} s")
        if _read_all(out) != _read_all(images):
            sys.exit("what came back is not what was stored")
        _say("byte for byte what was stored")


def _write_digits(root: Path) -> int:
    """Write the digits that scikit-learn ships, and return how many there are."""
    from PIL import Image  # noqa: PLC0415 - only the demo needs them, and only the `demo` extra has them
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    root.mkdir(parents=True)
    with (root / "index.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = root / str(label) / f"{number:04}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray((pixels * 255 / 16).astype("uint8")).save(path)
            rows.writerow([path.relative_to(root), label])
    return len(digits.target)


def _relabel(root: Path) -> int:
    """Move the first ten zeros to another class, as a correction of labels would."""
    moved = sorted((root / "0").iterdir())[:10]
    for path in moved:
        path.rename(root / "9" / path.name)
    return len(moved)


def _read_all(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _sent(result: lading.UploadResult) -> str:
    transfer = result.transfer
    return f"sent {transfer.bytes_sent:,} of {transfer.bytes_total:,} bytes"


@contextlib.contextmanager
def _server(data: Path) -> Iterator[str]:
    """Start the server as a user would, and end it with SIGTERM."""
    command = [sys.executable, "-m", "lading_server", "--data", str(data), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603
        line = process.stdout.readline() if process.stdout else ""
        if _READY not in line:
            sys.exit("the server did not start; run `lading serve` to see why")
        _say(line.strip())
        try:
            yield line.partition(_READY)[2].split()[0]
        finally:
            process.terminate()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
