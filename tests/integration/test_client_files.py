"""A version's files: stored, fetched, read by ranges, verified and compared."""

from __future__ import annotations

import io
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import lading
from lading_format.digest import blake3_digest
from tests.support.server import ServerProcess

SEED = 11
# More than what is read ahead, and no multiple of anything.
BIG = random.Random(SEED).randbytes((20 << 20) + 7)
FILES = {"big.bin": BIG, "empty": b"", "images/1.png": b"one", "images/2.png": b"two", "run.sh": b"#!/bin/sh\n"}


@pytest.fixture
async def client(
    shared_server: ServerProcess, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[lading.Client]:
    """A client of an entity and with a cache of the test's own."""
    monkeypatch.setenv("LADING_CACHE_DIR", str(tmp_path / "cache"))
    entity = f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"
    async with lading.Client(shared_server.target, entity=entity, project="vision") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a large file, an empty one and one that may be executed."""
    root = tmp_path / "source"
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    (root / "run.sh").chmod(0o755)
    return root


@pytest.fixture
async def version(client: lading.Client, source: Path) -> lading.Version:
    """That directory, stored."""
    return (await client.put(source, "digits", type="dataset")).version


async def test_what_is_put_is_fetched_byte_for_byte(
    version: lading.Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = await version.download()
    assert root == Path("artifacts/digits:v0")
    assert {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()} == FILES
    assert os.access(root / "run.sh", os.X_OK)
    assert not os.access(root / "big.bin", os.X_OK)
    assert (await version.verify(root)).ok


async def test_a_prefix_fetches_a_part(version: lading.Version, tmp_path: Path) -> None:
    root = await version.download(tmp_path / "out", prefix="images/")
    assert sorted(os.listdir(root)) == ["images"]
    assert (await version.verify(root)).missing == ("big.bin", "empty", "run.sh")


async def test_a_single_file_keeps_its_name(client: lading.Client, source: Path) -> None:
    put = await client.put(source / "run.sh", "script", type="code")
    assert [entry.path async for entry in put.version.files()] == ["run.sh"]
    assert put.version.file_count == 1


async def test_something_that_lists_its_entries_is_put(client: lading.Client, source: Path) -> None:
    class Entries:
        def entries(self) -> dict[str, str | os.PathLike[str] | lading.Reference]:
            return {"model.bin": source / "big.bin", "more": lading.Reference("s3://bucket/key", size_bytes=3)}

    put = await client.put(Entries(), "model", type="model")
    assert (put.version.file_count, put.version.reference_count) == (1, 1)


async def test_what_cannot_be_put_is_refused(client: lading.Client, tmp_path: Path) -> None:
    with pytest.raises(lading.InvalidArgument):
        await client.put(3, "digits", type="dataset")  # type: ignore[arg-type]
    with pytest.raises(lading.InvalidArgument, match="not a directory"):
        await client.put(tmp_path / "nothing", "digits", type="dataset")


async def test_files_are_listed_whole_by_prefix_and_by_level(version: lading.Version) -> None:
    assert [entry.path async for entry in version.files()] == sorted(FILES)
    assert [entry.path async for entry in version.files("images/")] == ["images/1.png", "images/2.png"]
    folded = [entry async for entry in version.files(fold_directories=True)]
    assert [entry.path for entry in folded if entry.kind is lading.EntryKind.DIRECTORY] == ["images/"]


async def test_a_file_is_read_whole(version: lading.Version) -> None:
    assert await version.read_bytes("big.bin") == BIG
    assert await version.read_bytes("empty") == b""
    async with version.open("big.bin") as file:
        assert file.size == len(BIG)
        assert await file.read() == BIG
        assert await file.read() == b""
    async with version.open("empty") as file:
        assert await file.read() == b""


async def test_a_file_is_read_in_order_in_pieces_of_any_size(version: lading.Version) -> None:
    sizes = random.Random(SEED)
    pieces: list[bytes] = []
    async with version.open("big.bin") as file:
        while piece := await file.read(sizes.choice([1, 1000, 70_000, 3 << 20])):
            assert file.tell() == sum(map(len, pieces)) + len(piece)
            pieces.append(piece)
    assert b"".join(pieces) == BIG


async def test_a_file_is_read_anywhere(version: lading.Version) -> None:
    print(f"seed {SEED}")
    places = random.Random(SEED)
    async with version.open("big.bin") as file:
        for _ in range(40):
            offset, size = places.randrange(len(BIG) + 10), places.choice([0, 1, 999, 2 << 20])
            assert await file.seek(offset) == offset
            assert await file.read(size) == BIG[offset : offset + size]
        assert await file.seek(-7, io.SEEK_END) == len(BIG) - 7
        assert await file.read() == BIG[-7:]
        await file.seek(0)
        await file.read(10)
        await file.seek(5, io.SEEK_CUR)
        assert await file.read(5) == BIG[15:20]
        for offset, whence in ((-1, io.SEEK_SET), (0, 7), (-len(BIG) - 1, io.SEEK_END)):
            with pytest.raises(lading.InvalidArgument):
                await file.seek(offset, whence)
    with pytest.raises(lading.InvalidArgument, match="closed"):
        await file.read()


async def test_a_part_of_a_file_costs_about_a_part_of_it(version: lading.Version) -> None:
    async with version.open("big.bin") as file:
        spy = _Substitute(file._content, file.digest)
        file._content = spy  # type: ignore[assignment]
        await file.seek(len(BIG) // 2)
        assert await file.read(100) == BIG[len(BIG) // 2 :][:100]
        await file.seek(len(BIG) // 2 + 50)
        assert await file.read(100) == BIG[len(BIG) // 2 + 50 :][:100]
    assert spy.sent_bytes == 256 << 10


async def test_what_is_read_from_start_to_end_is_verified(version: lading.Version) -> None:
    async with version.open("big.bin") as file:
        file.digest = "b3:" + "0" * 64  # what a listing that lies would have said
        content = file._content
        file._content = _Substitute(content, (await _entry(version, "big.bin")).digest)  # type: ignore[assignment]
        await file.seek(5)
        await file.read(5)
        await file.seek(0)
        for _ in range(len(BIG) >> 20):
            assert len(await file.read(1 << 20)) == 1 << 20
        with pytest.raises(lading.IntegrityError, match="big"):
            await file.read(1 << 20)


async def test_paths_that_are_not_there_and_references_are_told_apart(client: lading.Client, source: Path) -> None:
    put = await client.put(
        {"here": source / "run.sh", "there": lading.Reference("s3://bucket/key")}, "mixed", type="dataset"
    )
    with pytest.raises(lading.NotFound, match="hers"):
        await put.version.read_bytes("hers")
    with pytest.raises(lading.NotFound):
        await put.version.read_bytes("her")
    with pytest.raises(lading.FailedPrecondition, match="s3://bucket/key"):
        await put.version.read_bytes("there")
    with pytest.raises(lading.FailedPrecondition):
        async with put.version.open("there"):
            pass


async def test_verify_tells_what_differs(version: lading.Version, tmp_path: Path) -> None:
    root = await version.download(tmp_path / "out")
    (root / "empty").unlink()
    (root / "images/1.png").write_bytes(b"ONE")
    (root / "images/2.png").unlink()
    (root / "images/2.png").symlink_to(root / "images/1.png")
    (root / "run.sh").chmod(0o644)
    (root / "extra").mkdir()
    (root / "extra/file").write_bytes(b"")
    os.mkfifo(root / "pipe")
    result = await version.verify(root)
    assert result == lading.VerifyResult(
        missing=("empty",), changed=("images/1.png", "images/2.png", "run.sh"), extra=("extra/file", "pipe")
    )
    assert not result.ok
    with pytest.raises(lading.InvalidArgument, match="not a directory"):
        await version.verify(tmp_path / "nowhere")


async def test_a_link_to_the_right_files_is_not_the_right_directory(version: lading.Version, tmp_path: Path) -> None:
    root = await version.download(tmp_path / "out")
    (root / "images").rename(tmp_path / "images")
    (root / "images").symlink_to(tmp_path / "images")
    result = await version.verify(root)
    assert result == lading.VerifyResult(missing=("images/1.png", "images/2.png"), extra=("images",))


async def test_two_versions_are_compared(client: lading.Client, version: lading.Version, source: Path) -> None:
    (source / "images/1.png").write_bytes(b"ONE")
    (source / "images/3.png").write_bytes(b"three")
    (source / "empty").unlink()
    later = (await client.put(source, "digits", type="dataset")).version
    assert later.number == 1
    assert [(change.path, change.kind.value) async for change in version.diff(later)] == [
        ("empty", "removed"),
        ("images/1.png", "changed"),
        ("images/3.png", "added"),
    ]


async def test_files_that_did_not_change_are_not_read_again(
    client: lading.Client, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading._digest_cache.RACY_NS", 0)  # or the test would have to wait
    first = await client.put(source, "digits", type="dataset")
    before = _read_bytes()
    seen: list[lading.Progress] = []
    again = await client.put(source, "other", type="dataset", on_progress=seen.append)
    assert _read_bytes() - before < len(BIG) // 2
    assert again.version.digest == first.version.digest
    assert (seen[-1].files_done, seen[-1].bytes_deduplicated) == (len(FILES), sum(map(len, FILES.values())))
    assert seen[-1].bytes_sent == 0

    (source / "images/1.png").write_bytes(b"ONE")
    before = _read_bytes()
    changed = await client.put(source, "digits", type="dataset", on_progress=seen.append)
    assert _read_bytes() - before < len(BIG) // 2
    assert seen[-1].bytes_sent == 3
    assert await changed.version.read_bytes("images/1.png") == b"ONE"
    assert await changed.version.read_bytes("big.bin") == BIG


async def test_every_file_is_asked_for_where_a_tree_turned_out_to_miss_some(
    client: lading.Client, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading._digest_cache.RACY_NS", 0)
    first = await client.put(source, "digits", type="dataset")
    content = await client.connection.content(first.version.entity)
    before = _read_bytes()
    again = await content.upload_tree(source, recheck=True)
    assert _read_bytes() - before < len(BIG) // 2
    assert (again.tree.digest, again.already_present, again.transfer.bytes_sent) == (first.version.digest, True, 0)


async def test_what_could_not_be_committed_is_not_sent(client: lading.Client, source: Path) -> None:
    seen: list[lading.Progress] = []
    with pytest.raises(lading.InvalidArgument, match="JSON"):
        await client.put(source, "digits", type="dataset", metadata={"source": source}, on_progress=seen.append)
    with pytest.raises(lading.FailedPrecondition, match="link"):
        await client.put(source, "model-registry/Digit Reader", type="model", on_progress=seen.append)
    assert not seen


async def test_an_entity_that_does_not_have_the_files_is_sent_them(
    client: lading.Client, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading._digest_cache.RACY_NS", 0)
    await client.put(source, "digits", type="dataset")
    seen: list[lading.Progress] = []
    put = await client.put(source, "another/vision/digits", type="dataset", on_progress=seen.append)
    assert seen[-1].bytes_sent == sum(map(len, FILES.values()))
    assert put.version.entity == "another"
    assert await put.version.read_bytes("big.bin") == BIG


async def _entry(version: lading.Version, path: str) -> lading.ListedEntry:
    (entry,) = [entry async for entry in version.files(path)]
    return entry


class _Substitute:
    """The real content, of which one file's bytes are sent for another's digest, and counted."""

    def __init__(self, content: Any, digest: str) -> None:
        self._content = content
        self._digest = digest
        self.sent_bytes = 0

    async def read_file(self, digest: str, **kwargs: int) -> AsyncIterator[bytes]:
        async for data in self._content.read_file(self._digest, **kwargs):
            self.sent_bytes += len(data)
            yield data


def _read_bytes() -> int:
    """How many bytes this process read from files, sockets not counted."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])
