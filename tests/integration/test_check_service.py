"""Checks of a real server, through the SDK and the command line: found, told by version, healed by the next upload."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lading
import lading.sync
from tests.support.check import flip
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess, running_server

_RANDOM = random.Random(11)
CHUNK_BYTES = 1 << 20


@pytest.fixture
async def client(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[lading.Client]:
    """A client that remembers the digests of files."""
    monkeypatch.setenv("LADING_CACHE_DIR", str(tmp_path / "cache"))
    async with lading.Client(server.target, entity="acme", project="vision") as opened:
        yield opened


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with a file of many chunks, and a small one, old enough to be remembered."""
    root = tmp_path / "model"
    root.mkdir()
    (root / "weights.bin").write_bytes(_RANDOM.randbytes(6 * CHUNK_BYTES))
    (root / "config.json").write_bytes(b"{}")
    for path in root.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def damage_a_chunk(server: ServerProcess) -> int:
    """Flip a byte in the middle of the largest chunk; return how many bytes that has."""
    with sqlite3.connect(f"file:{server.data / 'ingest.db'}?mode=ro", uri=True) as database:
        query = "SELECT pack_id, record_offset, raw_bytes FROM chunks ORDER BY raw_bytes DESC LIMIT 1"
        pack, offset, raw_bytes = database.execute(query).fetchone()
    flip(server.data / "packs" / pack.hex()[-2:] / f"{pack.hex()}.pack", offset + 64 + raw_bytes // 2)
    return int(raw_bytes)


async def check(client: lading.Client, level: int = 4) -> tuple[list[object], lading.CheckSummary]:
    """Return what was told but progress, and the summary."""
    told: list[object] = [event async for event in client.check(level) if not isinstance(event, lading.CheckProgress)]
    summary = told.pop()
    assert isinstance(summary, lading.CheckSummary)
    return told, summary


async def assert_clean(client: lading.Client) -> None:
    told, summary = await check(client)
    assert told == []
    assert summary.complete


async def test_damage_is_found_told_by_version_and_healed_by_the_same_put(
    client: lading.Client, server: ServerProcess, model: Path, tmp_path: Path
) -> None:
    first = (await client.put(model, "classifier", type="model")).version
    await assert_clean(client)
    lost_bytes = damage_a_chunk(server)
    (finding, hurt), summary = await check(client)
    assert isinstance(finding, lading.CheckFinding)
    assert (finding.kind, finding.is_loss, finding.entity) == (lading.FindingKind.CHUNK_LOST, True, "acme")
    assert isinstance(hurt, lading.HurtVersion)
    assert (hurt.version, hurt.version_uid) == ("acme/vision/classifier:v0", first.uid)
    assert hurt.damaged_paths == ("weights.bin",)
    assert (summary.complete, summary.losses, summary.hurt_versions) == (True, 1, 1)

    # What is left can be read.
    config = tmp_path / "config"
    await first.download(config, prefix="config")
    assert (config / "config.json").read_bytes() == b"{}"
    with pytest.raises(lading.IntegrityError, match="store the same files again"):
        await first.download(tmp_path / "whole")

    # Nothing changed on this side, and all of it is remembered: all the same just what is lost is sent.
    sent: list[lading.Progress] = []
    again = await client.put(model, "classifier", type="model", on_progress=sent.append)
    assert again.version.number == 0
    assert sent[-1].bytes_sent == lost_bytes
    await assert_clean(client)
    await first.download(tmp_path / "healed")
    assert (tmp_path / "healed/weights.bin").read_bytes() == (model / "weights.bin").read_bytes()
    # And then nothing at all, as ever.
    sent.clear()
    await client.put(model, "classifier", type="model", on_progress=sent.append)
    assert sent[-1].bytes_sent == 0


async def test_a_read_that_meets_damage_is_enough_for_the_next_put_to_heal(
    client: lading.Client, server: ServerProcess, model: Path, tmp_path: Path
) -> None:
    version = (await client.put(model, "classifier", type="model")).version
    damage_a_chunk(server)
    with pytest.raises(lading.IntegrityError):
        await version.download(tmp_path / "whole")
    # In the background: soon, and not at once.
    while (await check(client, 1))[1].losses == 0:
        pass
    await client.put(model, "classifier", type="model")
    await version.download(tmp_path / "healed")
    assert (await check(client))[1].losses == 0


async def test_a_check_continues_after_the_server_was_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    flags = ("--pack-target-bytes", str(CHUNK_BYTES))
    source = tmp_path / "source"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.bin").write_bytes(_RANDOM.randbytes(2 * CHUNK_BYTES))
    with running_server(data, *flags) as server:
        async with lading.Client(server.target, entity="acme") as client:
            await client.put(source, "files", type="dataset")
            some = [event async for event in client.check(3, max_bytes=3 * CHUNK_BYTES)]
        server.kill()
    assert isinstance(some[-1], lading.CheckSummary)
    assert not some[-1].complete
    with running_server(data, *flags) as server:
        async with lading.Client(server.target, entity="acme") as client:
            told, summary = await check(client, 3)
    assert (told, summary.complete) == ([], True)
    assert 12 * CHUNK_BYTES < summary.bytes_done < 16 * CHUNK_BYTES


def test_the_command_says_what_is_lost_and_ends_with_4(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    cli = CommandLine(
        tmp_path / "home",
        XDG_RUNTIME_DIR=str(server.runtime),
        LADING_URL=server.target,
        LADING_ENTITY="acme",
        LADING_CACHE_DIR="",
    )
    cli("put", str(model), "classifier", "--type", "model")
    assert cli("check", "--level", "4").startswith("checked ")
    damage_a_chunk(server)
    assert cli("check", "--level", "2").endswith("0 findings, 0 lost\n")
    done = cli.run("check", "--level", "3")
    assert done.returncode == 4
    finding, hurt, summary = done.stdout.splitlines()
    assert finding.startswith("LOST: chunk lost (entity acme): b3:")
    assert hurt == "HURT: acme/default/classifier:v0: 1 file: weights.bin"
    assert summary.endswith("1 finding, 1 lost, 1 version hurt")
    lines = [json.loads(line) for line in cli.run("check", "--json").stdout.splitlines()]
    assert [line["what"] for line in lines] == ["finding", "hurt version", "check summary"]
    cli("put", str(model), "classifier", "--type", "model")
    assert cli("check", "--level", "4", "--restart").endswith("0 findings, 0 lost\n")


def test_the_operator_checks_and_nobody_else(model: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", auth="keys") as server:
        mine = {"XDG_RUNTIME_DIR": str(server.runtime), "LADING_URL": server.target, "LADING_CACHE_DIR": ""}
        admin = CommandLine(tmp_path / "home", **mine)
        admin("put", str(model), "classifier", "--type", "model")
        code, said = admin.refused("check")
        assert code == 1
        assert "operator" in said
        operator = CommandLine(
            tmp_path / "operator", **mine, LADING_API_KEY=(server.data / "operator.key").read_text().strip()
        )
        assert operator("check", "--level", "4").endswith("0 findings, 0 lost\n")
        damage_a_chunk(server)
        done = operator.run("check", "--level", "4")
        assert done.returncode == 4
        # The operator sees no names, of versions nor of files.
        assert "HURT: default, version " in done.stdout
        assert done.stdout.splitlines()[1].endswith(": 1 file")
        assert "weights" not in done.stdout
        code, said = operator.refused("check", "--entity", "NOT A NAME")
        assert code == 2


def test_a_plain_program_checks_too(server: ServerProcess, model: Path) -> None:
    with lading.sync.Client(server.target, entity="acme") as client:
        client.put(model, "classifier", type="model")
        *_, summary = client.check(4)
        assert isinstance(summary, lading.CheckSummary)
        assert (summary.complete, summary.findings) == (True, 0)
        with pytest.raises(lading.InvalidArgument, match="1, 2, 3 or 4"):
            next(client.check(5))


async def test_a_server_checks_by_itself(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server:
        async with lading.Client(server.target, entity="acme") as client:
            await client.put(model, "classifier", type="model")
        damage_a_chunk(server)
        server.terminate()
    # Much more than there is, so that the whole of it is through soon.
    with running_server(data, "--check-bytes-per-day", str(1 << 50)) as server:
        async with lading.Client(server.target, entity="acme") as client:
            while (await check(client, 1))[1].losses == 0:
                pass
            while "daily check: through" not in server.log_text():
                await client.usage()
            assert "needs what is lost: 1 files" in server.log_text()
            await client.put(model, "classifier", type="model")
            assert (await check(client))[1].losses == 0
        assert server.terminate() == 0
