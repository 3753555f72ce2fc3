"""What goes up comes down the same, and what is there does not travel again."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

import lading
from lading_format.chunking import MAX_CHUNK_BYTES
from lading_format.digest import blake3_digest, format_digest
from tests.support.server import ServerProcess

_RANDOM = random.Random(20)


@pytest.fixture
async def client(shared_server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[lading.IngestClient]:
    """A client of an entity of the test's own."""
    entity = f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"
    async with lading.IngestClient(shared_server.target, entity=entity) as opened:
        yield opened


def write(root: Path, files: Mapping[str, bytes], executable: tuple[str, ...] = ()) -> Path:
    """Make a directory of files."""
    root.mkdir(exist_ok=True)
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        (root / path).chmod(0o755 if path in executable else 0o644)
    return root


def read(root: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


ROUND_TRIPS: dict[str, dict[str, bytes]] = {
    "an empty tree": {},
    "an empty file": {"empty": b""},
    "one byte": {"one": b"1"},
    "around the chunk limit": {
        str(size): _RANDOM.randbytes(size) for size in (MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 1)
    },
    "around a small file's limit": {str(size): _RANDOM.randbytes(size) for size in (131071, 131072, 131073)},
    "a file of many chunks": {"big": _RANDOM.randbytes(40 << 20)},
    "unusual names": {
        "with space/and 'quotes' \"too\"": b"1",
        "é/日本語.txt": b"2",
        "\N{THUMBS UP SIGN}": b"3",
        "new\nline": b"4",
        "-rf *": b"5",
        " ": b"6",
        "~": b"7",
    },
    "a deep path": {"/".join(["d"] * 200) + "/f": b"deep", "d/f": b"less deep"},
    "identical files": {"a": b"same" * 99, "b/a": b"same" * 99, "c": b"", "d": b""},
    "10,000 small files": {f"{number % 7}/{number}": str(number).encode() * 50 for number in range(10_000)},
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
async def test_what_goes_up_comes_down_the_same(client: lading.IngestClient, tmp_path: Path, name: str) -> None:
    files = ROUND_TRIPS[name]
    result = await client.upload_tree(write(tmp_path / "in", files))
    size_bytes = sum(map(len, files.values()))
    assert result.tree == lading.TreeInfo(result.tree.digest, len(files), 0, size_bytes)
    assert not result.already_present
    assert (result.transfer.bytes_done, result.transfer.bytes_total) == (size_bytes, size_bytes)
    assert (result.transfer.files_done, result.transfer.files_total) == (len(files), len(files))
    downloaded = await client.download_tree(result.tree.digest, tmp_path / "out")
    assert read(tmp_path / "out") == files
    assert (downloaded.transfer.bytes_done, downloaded.transfer.files_done) == (size_bytes, len(files))
    assert await client.get_tree(result.tree.digest) == result.tree


async def test_the_right_to_execute_travels(client: lading.IngestClient, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"run": b"#!", "data": b"#!", "big": b"x" * (3 << 20)}, executable=("run", "big"))
    executable = await client.upload_tree(source)
    await client.download_tree(executable.tree.digest, tmp_path / "out")
    assert {path.name for path in _executables(tmp_path / "out")} == {"run", "big"}
    (source / "run").chmod(0o644)
    plain = await client.upload_tree(source)
    assert plain.tree.digest != executable.tree.digest
    assert plain.transfer.bytes_sent == 0
    kept = await client.download_tree(plain.tree.digest, tmp_path / "out")
    assert {path.name for path in _executables(tmp_path / "out")} == {"big"}
    assert kept.transfer.bytes_sent == 0


async def test_identical_files_travel_once(client: lading.IngestClient, tmp_path: Path) -> None:
    small, large = _RANDOM.randbytes(1000), _RANDOM.randbytes(5 << 20)
    files = {f"{copy}/{name}": data for copy in range(4) for name, data in (("small", small), ("large", large))}
    result = await client.upload_tree(write(tmp_path / "in", files))
    assert result.transfer.bytes_sent == len(small) + len(large)
    downloaded = await client.download_tree(result.tree.digest, tmp_path / "out")
    assert downloaded.transfer.bytes_sent == len(small) + len(large)
    assert read(tmp_path / "out") == files


async def test_an_unchanged_tree_sends_nothing(client: lading.IngestClient, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": _RANDOM.randbytes(9 << 20), "b": b"b", "c": b""})
    first = await client.upload_tree(source)
    again = await client.upload_tree(source)
    assert (again.tree, again.already_present, again.transfer.bytes_sent) == (first.tree, True, 0)
    assert again.transfer.bytes_deduplicated == again.transfer.bytes_total
    assert again.transfer.files_deduplicated == 3


async def test_a_tenth_changed_sends_little(client: lading.IngestClient, tmp_path: Path) -> None:
    data = bytearray(_RANDOM.randbytes(50 << 20))
    await client.upload_tree(write(tmp_path / "in", {"model": bytes(data)}))
    data[20 << 20 : 25 << 20] = _RANDOM.randbytes(5 << 20)
    data[1000:1000] = b"inserted"
    result = await client.upload_tree(write(tmp_path / "in", {"model": bytes(data)}))
    assert 5 << 20 <= result.transfer.bytes_sent < 12 << 20
    await client.download_tree(result.tree.digest, tmp_path / "out")
    assert read(tmp_path / "out") == {"model": bytes(data)}


async def test_the_same_file_in_two_trees_is_stored_once(client: lading.IngestClient, tmp_path: Path) -> None:
    shared = _RANDOM.randbytes(3 << 20)
    first = await client.upload_tree(write(tmp_path / "one", {"x": shared}))
    second = await client.upload_tree(write(tmp_path / "two", {"y": shared, "z": b"new"}))
    assert second.transfer.bytes_sent == 3
    await client.download_tree(first.tree.digest, tmp_path / "out1")
    await client.download_tree(second.tree.digest, tmp_path / "out2")
    assert (read(tmp_path / "out1"), read(tmp_path / "out2")) == ({"x": shared}, {"y": shared, "z": b"new"})


async def test_what_is_there_is_kept_and_what_differs_is_replaced(client: lading.IngestClient, tmp_path: Path) -> None:
    files = {"same": b"1" * 5000, "other": b"2" * 5000, "big": _RANDOM.randbytes(2 << 20), "gone": b"4"}
    result = await client.upload_tree(write(tmp_path / "in", files))
    write(
        tmp_path / "out", {**files, "other": b"!" * 5000, "big": files["big"][:-1] + b"!", "mine": b"not in the tree"}
    )
    (tmp_path / "out" / "gone").unlink()
    before = (tmp_path / "out" / "same").stat()
    downloaded = await client.download_tree(result.tree.digest, tmp_path / "out")
    assert read(tmp_path / "out") == {**files, "mine": b"not in the tree"}
    assert (tmp_path / "out" / "same").stat() == before
    assert downloaded.transfer.bytes_deduplicated == 5000
    assert downloaded.transfer.bytes_sent == 5000 + (2 << 20) + 1


async def test_a_mapping_with_references_round_trips(client: lading.IngestClient, tmp_path: Path) -> None:
    local = write(tmp_path / "in", {"f": b"here"}) / "f"
    reference = lading.Reference("s3://bucket/key", "etag-1", 5 << 40)
    bare = lading.Reference("https://example.org/x")
    result = await client.upload_tree({"z/file": local, "m/away": reference, "a": bare})
    assert (result.tree.file_count, result.tree.reference_count, result.tree.size_bytes) == (1, 2, 4)
    downloaded = await client.download_tree(result.tree.digest, tmp_path / "out")
    assert read(tmp_path / "out") == {"z/file": b"here"}
    assert [(entry.path, entry.uri, entry.checksum, entry.size_bytes) for entry in downloaded.references] == [
        ("a", "https://example.org/x", "", None),
        ("m/away", "s3://bucket/key", "etag-1", 5 << 40),
    ]


async def test_a_prefix_brings_only_what_begins_with_it(client: lading.IngestClient, tmp_path: Path) -> None:
    files = {"images/1": b"1", "images/2": b"2", "imagesets": b"3", "labels": b"4"}
    result = await client.upload_tree(write(tmp_path / "in", files))
    await client.download_tree(result.tree.digest, tmp_path / "out", prefix="images/")
    assert read(tmp_path / "out") == {"images/1": b"1", "images/2": b"2"}


async def test_include_and_exclude_choose_what_goes_up(client: lading.IngestClient, tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.py": b"1", "b.log": b"2", "cache/c.py": b"3", "d/e.py": b"4"})
    result = await client.upload_tree(tmp_path / "in", include=["*.py"], exclude=["cache"])
    assert [entry.path async for entry in client.list_tree(result.tree.digest)] == ["a.py", "d/e.py"]


async def test_a_listing_is_paged_underneath(client: lading.IngestClient, tmp_path: Path) -> None:
    files = {f"{number % 3}/{number:05}": b"" for number in range(2500)}
    digest = (await client.upload_tree(write(tmp_path / "in", files))).tree.digest
    assert [entry.path async for entry in client.list_tree(digest)] == sorted(files)
    assert [entry.path async for entry in client.list_tree(digest, prefix="1/")] == sorted(
        path for path in files if path.startswith("1/")
    )
    folded = [entry async for entry in client.list_tree(digest, fold_directories=True)]
    assert [(entry.path, entry.kind) for entry in folded] == [
        (f"{number}/", lading.EntryKind.DIRECTORY) for number in range(3)
    ]


async def test_a_comparison_names_what_differs(client: lading.IngestClient, tmp_path: Path) -> None:
    base = await client.upload_tree(write(tmp_path / "one", {"same": b"1", "removed": b"2", "changed": b"3"}))
    target = await client.upload_tree(write(tmp_path / "two", {"same": b"1", "added": b"4", "changed": b"55"}))
    changes = [change async for change in client.diff_trees(base.tree.digest, target.tree.digest)]
    assert [(change.path, change.kind) for change in changes] == [
        ("added", lading.ChangeKind.ADDED),
        ("changed", lading.ChangeKind.CHANGED),
        ("removed", lading.ChangeKind.REMOVED),
    ]
    assert changes[0].before is None
    assert changes[1].after is not None
    assert changes[1].after.size_bytes == 2


async def test_progress_ends_with_the_totals(client: lading.IngestClient, tmp_path: Path) -> None:
    told: list[lading.Progress] = []
    source = write(tmp_path / "in", {"a": _RANDOM.randbytes(1 << 20), "b": b"1"})
    result = await client.upload_tree(source, on_progress=told.append)
    assert told[-1] == result.transfer
    downloaded = await client.download_tree(result.tree.digest, tmp_path / "out", on_progress=told.append)
    assert told[-1] == downloaded.transfer


async def test_what_the_progress_callback_raises_ends_the_transfer(client: lading.IngestClient, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: lading.Progress) -> None:
        raise StopError

    with pytest.raises(StopError):
        await client.upload_tree(write(tmp_path / "in", {"a": b"1"}), on_progress=stop)


async def test_a_tree_of_another_entity_is_not_found(
    client: lading.IngestClient, shared_server: ServerProcess, tmp_path: Path
) -> None:
    result = await client.upload_tree(write(tmp_path / "in", {"a": b"1"}))
    async with lading.IngestClient(shared_server.target, entity="somebody-else") as other:
        with pytest.raises(lading.NotFound):
            await other.download_tree(result.tree.digest, tmp_path / "out")
        assert await other.stat_blobs([format_digest(blake3_digest(b"1"))]) == {
            format_digest(blake3_digest(b"1")): None
        }


async def test_blobs_are_described_by_digest(client: lading.IngestClient, tmp_path: Path) -> None:
    await client.upload_tree(write(tmp_path / "in", {"a": b"123"}))
    there, missing = format_digest(blake3_digest(b"123")), format_digest(blake3_digest(b"456"))
    assert await client.stat_blobs([there, missing]) == {there: lading.BlobInfo(there, 3, 1), missing: None}


@pytest.mark.parametrize("digest", ["", "b3:xyz", "md5:00"])
async def test_a_malformed_digest_is_refused(client: lading.IngestClient, tmp_path: Path, digest: str) -> None:
    with pytest.raises(lading.InvalidArgument):
        await client.download_tree(digest, tmp_path / "out")


async def test_the_capabilities_name_every_limit_that_the_sdk_uses(client: lading.IngestClient) -> None:
    capabilities = await client.get_capabilities()
    assert capabilities.server_version
    assert {
        "max_message_bytes",
        "max_chunk_bytes",
        "max_digests_per_call",
        "max_page_size",
    } <= capabilities.limits.keys()
    assert {"max_chunks_per_message", "max_blobs_per_message", "max_ranges_per_call"} <= capabilities.limits.keys()


def _executables(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if os.access(path, os.X_OK)]
