"""Names through the client: commits, aliases, tags, cards, links and deletions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lading
from lading_format.digest import blake3_digest
from tests.support.server import ServerProcess


@pytest.fixture
async def client(
    shared_server: ServerProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[lading.Client]:
    """A client of an entity of the test's own."""
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    entity = f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"
    async with lading.Client(shared_server.target, entity=entity, project="vision") as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Something to store."""
    path = tmp_path / "file"
    path.write_bytes(b"0")
    return path


async def _put(client: lading.Client, file: Path, text: str, name: str = "digits", **kwargs: object) -> lading.Version:
    file.write_bytes(text.encode())
    return (await client.put({"file": file}, name, type="dataset", **kwargs)).version  # type: ignore[arg-type]


async def test_a_commit_says_what_it_made(client: lading.Client, file: Path) -> None:
    before = datetime.now(UTC)
    put = await client.put(
        {"file": file},
        "digits",
        type="dataset",
        aliases=["best", "reviewed"],
        tags=["b", "a"],
        description="# Digits",
        metadata={"accuracy": 0.9, "nested": {"classes": [1, 2]}},
    )
    version = put.version
    assert put.created
    assert (version.number, version.type, version.project, version.collection) == (0, "dataset", "vision", "digits")
    assert version.aliases == ("best", "latest", "reviewed")
    assert version.tags == ("a", "b")
    assert version.description == "# Digits"
    assert version.metadata == {"accuracy": 0.9, "nested": {"classes": [1, 2]}}
    assert (version.file_count, version.size_bytes, version.is_link, version.run_id) == (1, 1, False, "")
    assert abs(version.created_at - before) < timedelta(minutes=5)
    assert await client.version("digits") == version
    for reference in ("digits:best", "vision/digits:v0", f"digits@{version.digest}", f"lading://{version}", version):
        assert (await client.version(reference)).uid == version.uid


async def test_the_same_files_make_no_other_version(client: lading.Client, file: Path) -> None:
    first = await client.put({"file": file}, "digits", type="dataset", metadata={"a": 1})
    again = await client.put({"file": file}, "digits", type="dataset", aliases=["best"], tags=["t"], metadata={"a": 2})
    assert not again.created
    assert again.version.uid == first.version.uid
    assert again.version.aliases == ("best", "latest")
    assert again.version.tags == ("t",)
    assert again.version.metadata == {"a": 1}


async def test_what_is_not_there_is_told_as_such(client: lading.Client, file: Path) -> None:
    with pytest.raises(lading.NotFound) as caught:
        await client.version("nothing")
    assert caught.value.reason == "COLLECTION_NOT_FOUND"
    await _put(client, file, "0")
    with pytest.raises(lading.NotFound) as caught:
        await client.version("digits:v7")
    assert caught.value.reason == "VERSION_NOT_FOUND"
    with pytest.raises(lading.NotFound) as caught:
        await client.commit("b3:" + "0" * 64, "digits", type="dataset")
    assert caught.value.reason == "TREE_NOT_FOUND"


async def test_a_type_is_that_of_the_collection(client: lading.Client, file: Path) -> None:
    version = await _put(client, file, "0")
    with pytest.raises(lading.FailedPrecondition, match="dataset"):
        await client.commit(version.digest, "digits", type="model")
    assert not (await client.commit(version.digest, "digits", type="")).created


async def test_aliases_move_and_go(client: lading.Client, file: Path) -> None:
    first = await _put(client, file, "0", aliases=["best", "old"])
    second = await _put(client, file, "1")
    moved = await client.set_aliases(second, ["best", "new"], remove=["old"], expected={"best": 0, "new": None})
    assert moved.aliases == ("best", "latest", "new")
    assert (await client.version(first)).aliases == ()
    assert (await client.version("digits:best")).number == 1


async def test_a_wrong_belief_changes_nothing(client: lading.Client, file: Path) -> None:
    first = await _put(client, file, "0", aliases=["best"])
    second = await _put(client, file, "1")
    for expected in ({"best": 1}, {"best": None}):
        with pytest.raises(lading.Conflict) as caught:
            await client.set_aliases(second, ["best", "new"], expected=expected)
        assert caught.value.reason == "ALIAS_MOVED"
        assert caught.value.metadata["alias"] == "best"
    with pytest.raises(lading.Conflict):
        await client.commit(second.digest, "digits", type="", aliases=["best"], expected={"best": 7})
    assert (await client.version(first)).aliases == ("best",)
    assert (await client.version(second)).aliases == ("latest",)


async def test_concurrent_commits_are_numbered_without_a_gap(client: lading.Client, tmp_path: Path) -> None:
    async def put(number: int) -> lading.Committed:
        path = tmp_path / str(number)
        path.write_text(str(number))
        return await client.put({"file": path}, "digits", type="dataset")

    versions = await asyncio.gather(*[put(number) for number in range(20)])
    assert sorted(put.version.number for put in versions) == list(range(20))


async def test_tags_cards_and_metadata_change_without_a_version(client: lading.Client, file: Path) -> None:
    version = await _put(client, file, "0", tags=["a"], metadata={"a": 1}, description="old")
    assert (await client.tag_version(version, add=["b"], remove=["a", "never"])).tags == ("b",)
    assert (await client.update_version("digits", description="new")).metadata == {"a": 1}
    changed = await client.update_version("digits:v0", metadata={"b": 2})
    assert (changed.description, changed.metadata, changed.number) == ("new", {"b": 2}, 0)
    assert (await client.update_version(version, description="")).description == ""


async def test_collections_are_made_and_changed(client: lading.Client, file: Path) -> None:
    made = await client.create_collection("digits", type="dataset", description="# Digits", tags=["b", "a"])
    assert (made.kind, made.tags, made.version_count) == (lading.CollectionKind.SEQUENCE, ("a", "b"), 0)
    with pytest.raises(lading.AlreadyExists):
        await client.create_collection("digits", type="dataset")
    await _put(client, file, "0", aliases=["best"])
    changed = await client.update_collection("digits", description="new", add_tags=["c"], remove_tags=["a"])
    assert (changed.description, changed.tags) == ("new", ("b", "c"))
    assert changed.aliases == {"best": 0, "latest": 0}
    assert await client.collection("vision/digits") == changed
    with pytest.raises(lading.NotFound):
        await client.collection("nothing")


async def test_links_have_numbers_and_aliases_of_their_own(client: lading.Client, file: Path) -> None:
    first = await _put(client, file, "0", aliases=["best"], metadata={"a": 1})
    second = await _put(client, file, "1")
    link = await client.link(first, "Digit Reader", ["staging"])
    assert link.is_link
    assert (link.project, link.collection, link.number) == ("model-registry", "Digit Reader", 0)
    assert link.aliases == ("latest", "staging")
    assert (link.source, link.source_uid) == ("vision/digits:v0", first.uid)
    assert (link.digest, link.metadata) == (first.digest, {"a": 1})
    other = await client.link("digits:v1", "model-registry/Digit Reader", ["staging"], expected={"staging": 0})
    assert (other.number, other.source_uid) == (1, second.uid)
    again = await client.link(link, f"{first.entity}/model-registry/Digit Reader", ["production"])
    assert (again.uid, again.aliases) == (link.uid, ("production",))
    assert (await client.collection("model-registry/Digit Reader")).kind is lading.CollectionKind.PORTFOLIO
    with pytest.raises(lading.FailedPrecondition):
        await client.unlink(link)
    assert (await client.unlink(link, force=True)).uid == link.uid
    with pytest.raises(lading.NotFound):
        await client.version("model-registry/Digit Reader:production")
    assert (await client.version(first)).aliases == ("best",)


async def test_several_changes_are_made_together_or_not_at_all(client: lading.Client, file: Path) -> None:
    first = await _put(client, file, "0", aliases=["best"])
    second = await _put(client, file, "1")
    changes: list[lading.ChangeAliases | lading.Link | lading.Unlink] = [
        lading.ChangeAliases(second, set=["best"]),
        lading.Link(second, "Digit Reader", aliases=["staging"]),
        lading.ChangeAliases(first, set=["checked"], expected={"checked": 3}),
    ]
    with pytest.raises(lading.Conflict):
        await client.update_refs(changes)
    assert (await client.version("digits:best")).number == 0
    with pytest.raises(lading.NotFound):
        await client.collection("model-registry/Digit Reader")
    results = await client.update_refs(changes[:2])
    assert [(result.created, result.version.collection) for result in results] == [
        (False, "digits"),
        (True, "Digit Reader"),
    ]
    assert await client.update_refs([]) == []


async def test_one_call_is_about_one_entity(client: lading.Client, file: Path) -> None:
    version = await _put(client, file, "0")
    with pytest.raises(lading.InvalidArgument, match="another entity"):
        await client.link(version, "elsewhere/model-registry/Digit Reader")
    with pytest.raises(lading.InvalidArgument, match="one entity"):
        await client.update_refs([lading.ChangeAliases(version, ["a"]), lading.ChangeAliases("b/vision/c", ["a"])])
    with pytest.raises(lading.InvalidArgument, match="registered model"):
        await client.link(version, "vision/reader")


async def test_a_version_that_is_in_use_is_deleted_by_force_alone(client: lading.Client, file: Path) -> None:
    version = await _put(client, file, "0", aliases=["best"])
    await _put(client, file, "1")
    with pytest.raises(lading.FailedPrecondition) as caught:
        await client.delete(version)
    assert caught.value.reason == "VERSION_IN_USE"
    assert (await client.delete("digits:best", force=True)).uid == version.uid
    with pytest.raises(lading.NotFound):
        await client.version("digits:v0")
    assert (await _put(client, file, "0")).number == 2


async def test_a_reference_may_name_another_entity(client: lading.Client, file: Path) -> None:
    put = await _put(client, file, "0", name="neighbour/vision/digits")
    assert put.reference == "neighbour/vision/digits:v0"
    assert (await client.version("neighbour/vision/digits")).uid == put.uid
    with pytest.raises(lading.NotFound):
        await client.version("vision/digits")


async def test_texts_for_lists_are_refused(client: lading.Client, file: Path) -> None:
    with pytest.raises(lading.InvalidArgument, match=r"\['best'\]"):
        await _put(client, file, "0", aliases="best")
    with pytest.raises(lading.InvalidArgument, match=r"tags=\['best'\]"):
        await _put(client, file, "0", tags="best")


async def test_metadata_that_is_no_json_is_refused_before_anything_is_made(client: lading.Client, file: Path) -> None:
    with pytest.raises(lading.InvalidArgument, match="JSON"):
        await _put(client, file, "0", metadata={"file": file})
    with pytest.raises(lading.NotFound):
        await client.collection("digits")
