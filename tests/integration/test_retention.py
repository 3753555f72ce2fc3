"""Retention through the SDK, with and without an event loop, and the command line, with a server that asks for keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import lading
import lading.sync
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One that applies nothing by itself while the tests look."""
    with running_server(
        tmp_path_factory.mktemp("kept") / "data", "--retention-period-seconds", "0", auth="keys"
    ) as kept:
        yield kept


async def put(client: lading.Client, path: Path, name: str, **more: object) -> lading.Version:
    """Put another content each time."""
    path.write_bytes(path.read_bytes() + b"." if path.exists() else b".")
    return (await client.put(path, name, type="model", **more)).version  # type: ignore[arg-type]


async def test_a_rule_from_its_simulation_to_its_end(server: ServerProcess, tmp_path: Path) -> None:
    async with lading.Client(server.target, api_key=server.api_key) as admin:
        for number in range(6):
            await put(admin, tmp_path / "file", "vision/ruled", metadata={"accuracy": number % 4})
        await admin.set_aliases("vision/ruled:v0", ["best"])
        tried = [
            one
            async for one in admin.simulate_retention(
                "vision/ruled", keep_last=1, keep_best=1, best_by="metadata.accuracy"
            )
        ]
        assert [(one.number, one.goes, one.why) for one in tried] == [
            (5, False, "one of the last 1"),
            (4, True, "no part of the rule keeps it"),
            (3, False, "one of the best 1 (3)"),
            (2, True, "no part of the rule keeps it"),
            (1, True, "no part of the rule keeps it"),
            (0, False, "alias best"),
        ]
        rule = await admin.set_retention_rule("vision/ruled", keep_last=1, keep_best=1, best_by="metadata.accuracy")
        assert (rule.set_by, rule.best_order) == ("admin", lading.BestOrder.MAX)
        assert await admin.retention_rule("vision/ruled") == rule
        assert [one async for one in admin.retention_rules("vision")] == [rule]
        assert [one async for one in admin.simulate_retention("vision/ruled")] == tried
        await admin.add_member("mo", "member")
        made = await admin.create_key("mo")
        async with lading.Client(server.target, api_key=made.secret_key) as member:
            assert [one async for one in member.simulate_retention("vision/ruled")] == tried
            for refused in (
                member.set_retention_rule("vision/ruled", keep_last=1),
                member.delete_retention_rule("vision/ruled"),
                member.apply_retention(),
            ):
                with pytest.raises(lading.PermissionDenied):
                    await refused
        gone: list[lading.RetentionVerdict] = []
        applied = await admin.apply_retention("vision/ruled", gone.append)
        assert (applied.deleted, applied.size_bytes) == (3, sum(one.size_bytes for one in gone))
        assert sorted(one.reference for one in gone) == sorted(one.reference for one in tried if one.goes)
        assert [version.number async for version in admin.versions("vision/ruled")] == [5, 3, 0]
        told = [event async for event in admin.events("vision", "ruled") if event.kind == "version.deleted"]
        assert [(event.actor, event.after) for event in told] == [
            ("admin", {"why": "retention: no part of the rule keeps it"})
        ] * 3
        assert (await admin.verify_audit()).ok
        await admin.delete_retention_rule("vision/ruled")
        assert await admin.retention_rule("vision/ruled") is None
        with pytest.raises(lading.InvalidArgument) as refusal:
            await admin.set_retention_rule("vision/ruled")
        assert refusal.value.reason == "INVALID_RETENTION_RULE"
        with pytest.raises(lading.FailedPrecondition):
            await admin.set_retention_rule("model-registry/Reader", keep_last=1)
        with pytest.raises(lading.NotFound):
            await anext(admin.simulate_retention("vision/nothing", keep_last=1))


def test_times_to_live_without_an_event_loop(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    with lading.sync.Client(server.target, api_key=server.api_key) as client:
        made = client.put(tmp_path / "model.bin", "timed/put", type="model", ttl=timedelta(days=1)).version
        assert made.expires_at == made.created_at + timedelta(days=1)
        client.set_retention_rule("timed/*", keep_all=True, default_ttl=timedelta(hours=1))
        with lading.sync.init(project="timed", url=server.target, api_key=server.api_key) as run:
            own = run.log_artifact(tmp_path / "model.bin", "own", "model", ttl=timedelta(minutes=5)).result()
            ruled = run.log_artifact(tmp_path / "model.bin", "ruled", "model").result()
            kept = run.log_artifact(tmp_path / "model.bin", "kept", "model", ttl=timedelta(0)).result()
            with pytest.raises(lading.InvalidArgument, match="over already"):
                run.log_artifact(tmp_path / "model.bin", "none", "model", ttl=timedelta(seconds=-1))
        assert own.expires_at == own.created_at + timedelta(minutes=5)
        assert ruled.expires_at == ruled.created_at + timedelta(hours=1)
        assert kept.expires_at is None
        assert client.update_version(own, ttl=timedelta(0)).expires_at is None
        assert client.update_version(own, description="# Card").expires_at is None
        assert client.retention_rule("timed/own") == client.retention_rule("timed/*")
        assert client.apply_retention() == lading.RetentionApplied(0, 0)


def test_the_command_line(server: ServerProcess, tmp_path: Path) -> None:
    cli = CommandLine(tmp_path / "home", XDG_RUNTIME_DIR=str(server.runtime), LADING_URL=server.target)
    for number in range(3):
        (tmp_path / "file").write_text(str(number))
        cli("put", str(tmp_path / "file"), "shell/digits", "--type", "model", "--metadata", f"loss={number}")
    rows = cli("retention", "simulate", "shell/digits", "--keep-best", "1", "--by", "metadata.loss", "--order", "min")
    assert [line.split()[0] for line in rows.splitlines()[1:]] == ["goes", "goes", "stays"]
    said = cli("retention", "set", "shell/digits", "--keep-last", "1", "--keep-tag", "release", "--ttl", "30d")
    assert said == "shell/digits: last 1, tag release, new ones for 30d\n"
    assert "last 1, tag release" in cli("retention", "show", "shell/digits")
    assert "shell/digits" in cli("retention", "list")
    shown = json.loads(cli("retention", "show", "shell/digits", "--json"))
    assert (shown["keep_last"], shown["default_ttl_seconds"], shown["set_by"]) == (1, 30 * 86_400, "admin")
    assert cli("ttl", "shell/digits:v0", "12h").startswith("default/shell/digits:v0  20")
    assert cli("ttl", "shell/digits:v0", "never") == "default/shell/digits:v0  never\n"
    deleted = [json.loads(line) for line in cli("retention", "apply", "shell/*", "--json").splitlines()]
    assert [one["number"] for one in deleted] == [0, 1]
    history = cli("history", "shell/digits")
    assert "v1, retention: no part of the rule keeps it" in history
    assert "none -> last 1, tag release, new ones for 30d" in history
    assert "expires: none -> 20" in history
    assert cli("retention", "clear", "shell/digits") == "shell/digits: no rule of its own\n"
    (tmp_path / "file").write_text("short-lived")
    put = json.loads(cli("put", str(tmp_path / "file"), "shell/digits", "--ttl", "2w", "--json"))
    assert put["expires_at"] is not None
    assert "expires" in cli("show", "shell/digits:latest")


async def test_the_server_deletes_by_itself_what_can_be_deleted(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--retention-period-seconds", "0.1", auth="keys") as server:
        async with lading.Client(server.target, api_key=server.api_key) as client:
            await put(client, tmp_path / "file", "vision/brief", ttl=timedelta(seconds=1))
            await put(client, tmp_path / "file", "vision/brief", ttl=timedelta(seconds=1), aliases=["best"])
            async with asyncio.timeout(60):
                while [version.number async for version in client.versions("vision/brief")] != [1]:
                    continue
            told = [event async for event in client.events("vision", "brief") if event.kind == "version.deleted"]
            assert [(event.actor, event.origin) for event in told] == [("retention", "")]
            assert str((told[0].after or {})["why"]).startswith("retention: its time to live was over at ")
