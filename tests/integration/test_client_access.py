"""Members, keys, alias rules and tenants through the SDK and the command line, with real servers that ask for keys."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lading
import lading.sync
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess, running_server


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Keys are remembered for longer than any test takes: what ends at once does so because it is forgotten."""
    data = tmp_path_factory.mktemp("access") / "data"
    with running_server(data, "--key-cache-seconds", "86400", auth="keys") as server:
        yield server


def operator_key(server: ServerProcess) -> str:
    return (server.data / "operator.key").read_text().strip()


def client_of(server: ServerProcess, key: str, **settings: str) -> lading.Client:
    return lading.Client(server.target, api_key=key, **settings)  # type: ignore[arg-type]


async def test_a_member_is_added_gets_a_key_and_loses_it(keyed_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    async with client_of(keyed_server, keyed_server.api_key) as admin:
        added = await admin.add_member("mia@example.com", "member")
        assert added in [member async for member in admin.members()]
        made = await admin.create_key("mia@example.com", note="laptop", ttl_days=30)
        async with client_of(keyed_server, made.secret_key) as mia:
            assert await mia.whoami() == lading.Identity("mia@example.com", "default", "member", made.key_id)
            committed = await mia.put(tmp_path / "file", "vision/mias", type="dataset")
            assert committed.version.created_by == "mia@example.com"
            with pytest.raises(lading.PermissionDenied) as denied:
                await mia.delete(committed.version)
            assert (denied.value.reason, denied.value.metadata["required"]) == ("ROLE_DENIED", "admin")
            revoked = await admin.revoke_key(made.key_id)
            assert revoked.revoked_at is not None
            # In both halves, at once: they are one process.
            with pytest.raises(lading.Unauthenticated):
                await mia.version("vision/mias")
            with pytest.raises(lading.Unauthenticated):
                await committed.version.download(tmp_path / "fetched")
        assert [key.key_id async for key in admin.keys("mia@example.com")] == [made.key_id]
        await admin.remove_member("mia@example.com")
        with pytest.raises(lading.NotFound):
            await admin.remove_member("mia@example.com")


async def test_a_viewer_reads_and_writes_nothing(keyed_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"to be read")
    async with client_of(keyed_server, keyed_server.api_key) as admin:
        await admin.put(tmp_path / "file", "vision/shown", type="dataset")
        await admin.add_member("vic", lading.Role.VIEWER)
        made = await admin.create_key("vic")
    async with client_of(keyed_server, made.secret_key) as vic:
        version = await vic.version("vision/shown")
        assert (await version.download(tmp_path / "fetched") / "file").read_bytes() == b"to be read"
        for write in (
            vic.put(tmp_path / "file", "vision/not", type="dataset"),
            vic.set_aliases("vision/shown", ["best"]),
            vic.create_key(),
            vic.add_member("eve"),
        ):
            with pytest.raises(lading.PermissionDenied):
                await write


async def test_a_role_that_was_lowered_counts_at_once(keyed_server: ServerProcess) -> None:
    async with client_of(keyed_server, keyed_server.api_key) as admin:
        await admin.add_member("max", "admin")
        made = await admin.create_key("max")
        async with client_of(keyed_server, made.secret_key) as other:
            assert [member.name async for member in other.members()]
            await admin.add_member("max", "viewer")
            with pytest.raises(lading.PermissionDenied):
                await anext(other.members())


async def test_the_operator_makes_tenants_and_sees_nothing_in_them(keyed_server: ServerProcess) -> None:
    async with client_of(keyed_server, operator_key(keyed_server)) as operator:
        assert (await operator.whoami()).role == "operator"
        made = await operator.create_entity("umbrella", "ann")
        assert {"default", "umbrella"} <= {info.name async for info in operator.entities()}
        with pytest.raises(lading.AlreadyExists):
            await operator.create_entity("umbrella", "eve")
    async with client_of(keyed_server, operator_key(keyed_server), entity="default") as operator:
        for look in (operator.projects(), operator.members(), operator.keys(), operator.events()):
            with pytest.raises(lading.PermissionDenied):
                await anext(look)
    async with client_of(keyed_server, made.secret_key) as ann:
        assert (await ann.whoami()).entity == "umbrella"
        kinds = [event.kind async for event in ann.events()]
        assert kinds == ["entity.created", "member.added", "key.created"]
        with pytest.raises(lading.PermissionDenied):
            await anext(ann.entities())
    async with client_of(keyed_server, made.secret_key, entity="default") as stranger:
        with pytest.raises(lading.PermissionDenied) as denied:
            await anext(stranger.members())
        assert denied.value.reason == "ENTITY_DENIED"


async def test_a_protected_alias_is_for_admins_and_for_versions_with_its_tag(
    keyed_server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"a model")
    async with client_of(keyed_server, keyed_server.api_key) as admin:
        rule = await admin.set_alias_rule(
            "production", project="guarded", protected=True, required_tags=["approved"], required_metadata=["a.b"]
        )
        assert rule == lading.AliasRule("guarded", "", "production", True, ("approved",), ("a.b",))
        rule = await admin.set_alias_rule("production", project="guarded", protected=True, required_tags=["approved"])
        narrow = await admin.set_alias_rule("best", project="guarded", collection="digits", required_metadata=["a.b"])
        elsewhere = await admin.set_alias_rule("production", project="guarded-too", protected=True)
        with pytest.raises(lading.InvalidArgument, match="required_tags is a sequence"):
            await admin.set_alias_rule("production", project="guarded", required_tags="approved")
        await admin.add_member("moe", "member")
        made = await admin.create_key("moe")
        async with client_of(keyed_server, made.secret_key) as moe:
            assert [one async for one in moe.alias_rules("guarded")] == [rule, narrow]
            assert [one async for one in moe.alias_rules()] == [rule, narrow, elsewhere]
            put = (await moe.put(tmp_path / "file", "guarded/digits", type="model", tags=["approved"])).version
            with pytest.raises(lading.PermissionDenied) as denied:
                await moe.set_aliases(put, ["production"])
            assert denied.value.reason == "ALIAS_PROTECTED"
            for write in (
                moe.set_alias_rule("production", project="guarded"),
                moe.delete_alias_rule("production", project="guarded"),
            ):
                with pytest.raises(lading.PermissionDenied) as refused:
                    await write
                assert (refused.value.reason, refused.value.metadata["required"]) == ("ROLE_DENIED", "admin")
            await admin.tag_version(put, remove=["approved"])
            with pytest.raises(lading.FailedPrecondition) as lacking:
                await admin.set_aliases(put, ["production"])
            assert (lacking.value.reason, lacking.value.metadata["tags"]) == ("ALIAS_REQUIRES", "approved")
            await admin.tag_version(put, ["approved"])
            assert "production" in (await admin.set_aliases(put, ["production"])).aliases

            await admin.delete_alias_rule("best", project="guarded", collection="digits")
            for _ in range(2):
                await admin.delete_alias_rule("production", project="guarded")
            assert [one async for one in admin.alias_rules()] == [elsewhere]
            assert "production" not in (await moe.set_aliases(put, remove=["production"])).aliases
        await admin.delete_alias_rule("production", project="guarded-too")


def test_the_same_without_an_event_loop(keyed_server: ServerProcess) -> None:
    with lading.sync.Client(keyed_server.target, api_key=keyed_server.api_key) as admin:
        admin.add_member("bot", kind="service")
        made = admin.create_key("bot", "viewer")
        assert "bot" in [member.name for member in admin.members()]
        assert [key.role for key in admin.keys("bot")] == [lading.Role.VIEWER]
        assert admin.revoke_key(made.key_id).key_id == made.key_id
        rule = admin.set_alias_rule("stable", project="plain", required_metadata=["eval.accuracy"])
        assert list(admin.alias_rules("plain")) == [rule]
        admin.delete_alias_rule("stable", project="plain")
        assert list(admin.alias_rules("plain")) == []


def test_a_use_is_written_when_the_server_ends(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", auth="keys") as server:
        with lading.sync.Client(server.target, api_key=server.api_key) as admin:
            admin.whoami()
        server.terminate()
    with (
        running_server(tmp_path / "data", auth="keys") as server,
        lading.sync.Client(server.target, api_key=server.api_key) as admin,
    ):
        (key,) = admin.keys()
        assert key.last_used_at is not None
        assert key.last_used_at >= key.created_at


# --- the command line ---


@pytest.fixture
def cli(keyed_server: ServerProcess, tmp_path: Path) -> CommandLine:
    return CommandLine(
        tmp_path / "home",
        LADING_URL=keyed_server.target,
        LADING_API_KEY=keyed_server.api_key,
        XDG_RUNTIME_DIR=str(tmp_path),
    )


def as_caller(server: ServerProcess, home: Path, key: str) -> CommandLine:
    return CommandLine(home, LADING_URL=server.target, LADING_API_KEY=key, XDG_RUNTIME_DIR=str(home))


def test_a_key_from_the_shell_is_shown_once_and_can_be_revoked(
    cli: CommandLine, keyed_server: ServerProcess, tmp_path: Path
) -> None:
    assert cli("member", "add", "shelly", "--role", "member") == "shelly: member of default\n"
    done = cli.run("key", "create", "shelly", "--note", "from a shell", "--days", "7")
    secret = done.stdout.rstrip("\n")
    _, key_id, _ = secret.split("_", 2)
    assert done.returncode == 0
    assert done.stderr.startswith(f"key {key_id} of shelly, member of default, until ")
    assert secret not in done.stderr
    shelly = as_caller(keyed_server, tmp_path, secret)
    told = shelly.json("whoami")
    assert (told["principal"], told["role"], told["key_id"]) == ("shelly", "member", key_id)
    listed = shelly("key", "list")
    assert key_id in listed
    assert secret not in listed
    assert "from a shell" in listed
    code, refused = shelly.refused("member", "list")
    assert (code, "admin" in refused) == (1, True)
    assert cli("key", "revoke", key_id).startswith(f"{key_id} of shelly: revoked ")
    assert shelly.refused("whoami")[0] == 1
    assert cli.json("member", "remove", "shelly") == {"name": "shelly"}


def test_documents_of_keys_and_members(cli: CommandLine) -> None:
    member = cli.json("member", "add", "jay", "--service")
    assert (member["name"], member["kind"], member["role"]) == ("jay", "service", "member")
    made = cli.json("key", "create", "jay", "--role", "viewer")
    assert made["secret_key"].startswith(f"lading_{made['key_id']}_")
    (key,) = cli.json_lines("key", "list", "jay")
    assert (key["key_id"], key["role"], key["revoked_at"], key["last_used_at"]) == (
        made["key_id"],
        "viewer",
        None,
        None,
    )
    assert cli.json("key", "revoke", made["key_id"])["revoked_at"] is not None
    assert "jay" in [one["name"] for one in cli.json_lines("member", "list")]


def test_rules_from_the_shell(cli: CommandLine) -> None:
    everywhere = ("production", "--project", "shells")
    one_model = (*everywhere, "--collection", "Reader")
    told = cli("rule", "set", *everywhere, "--protected", "--tag", "approved", "--tag", "tested")
    assert told == "production in shells/*: admins only, tag approved, tag tested\n"
    kept = cli.json("rule", "set", *one_model, "--metadata", "eval.accuracy")
    assert kept == {
        "project": "shells",
        "collection": "Reader",
        "alias": "production",
        "protected": False,
        "required_tags": [],
        "required_metadata": ["eval.accuracy"],
    }
    assert cli.json_lines("rule", "list", "shells")[1] == kept
    heading, first, second = cli("rule", "list", "shells").splitlines()
    assert heading.split() == ["ALIAS", "PROJECT", "COLLECTION", "DEMANDS"]
    assert re.split(" {2,}", first) == ["production", "shells", "*", "admins only, tag approved, tag tested"]
    assert re.split(" {2,}", second) == ["production", "shells", "Reader", "metadata eval.accuracy"]
    assert cli("rule", "delete", *everywhere) == "production in shells/*: no rule\n"
    assert cli.json("rule", "delete", *one_model) == {
        "project": "shells",
        "collection": "Reader",
        "alias": "production",
    }
    assert cli.json_lines("rule", "list", "shells") == []
    assert cli.refused("rule", "set", "latest", "--project", "shells")[0] == 2
    assert cli.refused("rule", "set", "production")[0] == 2
    assert cli("rule").startswith("Usage: lading rule ")


def test_mistakes_end_with_the_codes_that_are_written_down(cli: CommandLine) -> None:
    assert cli.refused("key", "create", "--role", "root")[0] == 2
    assert cli.refused("key", "revoke", "aaaaaaaaaaaa")[0] == 3
    code, told = cli.refused("key", "revoke", "lading_aaaaaaaaaaaa_" + "S" * 43)
    assert code == 2
    assert "SSS" not in told
    assert cli.refused("member", "remove", "nobody")[0] == 3
    assert cli.refused("member", "remove", "admin")[0] == 1
    assert cli.refused("entity", "list")[0] == 1
    assert cli("key").startswith("Usage: lading key ")


def test_the_operator_makes_a_tenant_from_the_shell(keyed_server: ServerProcess, tmp_path: Path) -> None:
    operator = as_caller(keyed_server, tmp_path, operator_key(keyed_server))
    secret = operator("entity", "create", "shellfish", "--admin", "ann").rstrip("\n")
    assert "shellfish" in operator("entity", "list")
    assert as_caller(keyed_server, tmp_path, secret).json("whoami")["entity"] == "shellfish"
    (info,) = [one for one in operator.json_lines("entity", "list") if one["name"] == "shellfish"]
    assert info["limits"] == {"stored_bytes": 0, "streams": 0, "calls_per_second": 0}


async def test_no_secret_is_in_the_log(keyed_server: ServerProcess) -> None:
    async with client_of(keyed_server, keyed_server.api_key) as admin:
        made = await admin.create_key(note="for the log")
        async with client_of(keyed_server, made.secret_key) as other:
            await other.whoami()
    log = await asyncio.to_thread(keyed_server.log_text)
    secrets = [key.split("_", 2)[2] for key in (made.secret_key, keyed_server.api_key, operator_key(keyed_server))]
    assert made.key_id in log
    assert [secret for secret in secrets if secret in log] == []
