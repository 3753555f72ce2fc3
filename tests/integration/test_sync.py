"""lading.sync against real servers: the same story, without an event loop."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import lading
import lading.sync
from lading_format.digest import blake3_digest
from tests.support.server import ServerProcess


@pytest.fixture
def client(
    shared_server: ServerProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[lading.sync.Client]:
    """A client of an entity of the test's own. Settings are in the environment."""
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    monkeypatch.setenv("LADING_ENTITY", f"e{blake3_digest(request.node.name.encode()).hex()[:20]}")
    monkeypatch.setenv("LADING_URL", shared_server.target)
    monkeypatch.setenv("LADING_PROJECT", "digits")
    with lading.sync.Client() as opened:
        yield opened


def make(root: Path, files: dict[str, bytes]) -> Path:
    """Make a directory of files."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def test_the_whole_story_without_an_event_loop(client: lading.sync.Client, tmp_path: Path) -> None:
    data = make(tmp_path / "digits", {"0.png": b"zero", "one/1.png": b"one"})
    put = client.put(data, "digits", type="dataset", aliases=["reviewed"])
    assert put.created
    with lading.sync.init(job_type="train", config={"lr": 0.1}) as run:
        used = run.use_artifact("digits:reviewed", type="dataset")
        root = used.download(tmp_path / "out")
        assert used.verify(root).ok
        for step in range(100):
            run.log({"loss": 1 / (step + 1)})
        run.summary["note"] = "short"
        artifact = lading.sync.Artifact("mlp", type="model", metadata={"epochs": 1})
        with artifact.new_file("weights", "wb") as file:
            file.write(b"weights")
        logged = run.log_artifact(artifact, aliases=["best"])
        logged.wait()
        assert logged.done()
        version = logged.result()
        link = run.link_artifact(logged, "Reader", aliases=["staging"])
    assert isinstance(version, lading.sync.Version)
    assert version.read_bytes("weights") == b"weights"
    assert (link.reference.rpartition("/")[2], link.source_uid) == ("Reader:v0", version.uid)
    details = client.run(run.id)
    assert (details.state, details.summary["note"]) == (lading.RunState.FINISHED, "short")
    assert [found.name for found in details.inputs] == ["digits:v0"]
    assert isinstance(details.outputs[0], lading.sync.Version)
    assert len(client.metrics(run.id, "loss")) == 100
    assert {found.run_id for found in client.lineage(version).runs} == {run.id}
    assert client.version(details.outputs[0]).aliases == ("best", "latest")
    assert client.set_aliases(version, ["good"], remove=["best"]).aliases == ("good", "latest")
    changes: list[lading.sync.ChangeAliases | lading.sync.Link | lading.sync.Unlink] = [
        lading.sync.ChangeAliases(version, ["also"]),
        lading.sync.Link(version, "Other"),
        lading.sync.Unlink(link, force=True),
    ]
    assert [result.created for result in client.update_refs(changes)] == [False, True, False]


def test_listings_are_iterators(client: lading.sync.Client, tmp_path: Path) -> None:
    files = {f"{number:04}": b"x" for number in range(700)}
    one = client.put(make(tmp_path / "a", files), "many", type="dataset").version
    make(tmp_path / "a", {"0003": b"changed"})
    two = client.put(tmp_path / "a", "many", type="dataset").version
    assert [entry.path for entry in two.files()] == sorted(files)
    with two.files() as entries:
        assert next(entries).path == "0000"
    assert [(change.path, change.kind) for change in one.diff(two)] == [("0003", lading.ChangeKind.CHANGED)]
    assert [version.number for version in client.versions("many")] == [1, 0]
    with pytest.raises(lading.NotFound):
        next(client.versions("nothing"))


def test_a_stored_file_is_a_file_to_every_reader(client: lading.sync.Client, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner", b"in a zip" * 1000)
    lines = b"".join(b"line %d\n" % number for number in range(20_000))
    files = {"a.zip": packed.getvalue(), "lines": lines, "x.json": json.dumps({"a": 1}).encode()}
    version = client.put(make(tmp_path / "f", files), "files", type="dataset").version
    with version.open("a.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("inner") == b"in a zip" * 1000
    with version.open("x.json") as file:
        assert json.load(file) == {"a": 1}
    with version.open("lines") as file:
        assert (file.path, file.size) == ("lines", len(lines))
        assert b"".join(file) == lines
        assert file.seek(-9, io.SEEK_END) == len(lines) - 9
        assert file.read() == lines[-9:]
    assert file.closed
    with pytest.raises(lading.NotFound), version.open("nowhere"):
        pytest.fail("the block was entered")


def test_a_failing_block_fails_the_run_and_a_missing_upload_too(client: lading.sync.Client, tmp_path: Path) -> None:
    run = lading.sync.init().start()
    run.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert client.run(run.id).state is lading.RunState.FAILED
    model = make(tmp_path, {"model": b"1"}) / "model"
    run = lading.sync.init().start()
    run.log_artifact(model, type="model")
    model.write_bytes(b"another")
    with pytest.raises(lading.NotLogged, match="changed"):
        run.finish()
    assert client.run(run.id).state is lading.RunState.FAILED


def test_threads_share_a_client_and_a_run(client: lading.sync.Client, tmp_path: Path) -> None:
    with lading.sync.init() as run:

        def work(number: int) -> None:
            for step in range(50):
                run.log({f"loss-{number}": 1.0}, step=step)
            run.log_artifact(make(tmp_path / str(number), {"x": bytes([number])}), "shared", "model").result()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(version.number for version in client.versions("shared")) == list(range(8))
    assert {len(client.metrics(run.id, key)) for key in client.run(run.id).metric_keys} == {50}


_FORKING = """
import gc, os, signal, sys, traceback
import lading
import lading.sync

def child():
    signal.alarm(60)
    gc.collect()
    assert len([[number] for number in range(200_000)]) == 200_000
    for use in (
        lambda: run.log({"loss": 2.0}),
        lambda: client.run("x"),
        lambda: next(lading.sync.Client().projects()),
        lambda: next(listing),
        logged[-1].result,
    ):
        try:
            use()
        except lading.FailedPrecondition as error:
            assert "fork" in str(error)
        else:
            raise AssertionError("the child used what its parent made")

with lading.sync.Client() as client, lading.sync.init(run_id="forking") as run:
    assert client.whoami()
    listing = client.projects()
    logged = []
    codes = []
    for number in range(30):
        run.log({"loss": 1.0})
        logged.append(run.log_artifact(sys.argv[1], f"big-{number}", "model"))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    # Forks are in the middle of something, or this shows nothing.
    assert not logged[-1].done()
assert codes == [0] * 30, codes
"""


def test_forks_in_the_middle_of_a_run_disturb_neither_side(client: lading.sync.Client, tmp_path: Path) -> None:
    big = make(tmp_path, {"big": bytes(64 << 20)}) / "big"
    command = [sys.executable, "-c", _FORKING, str(big)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    details = client.run("forking")
    assert details.state is lading.RunState.FINISHED
    assert len(details.outputs) == 30
    assert len(client.metrics("forking", "loss")) == 30


_FORKS = """
import os, sys
import lading.sync

with lading.sync.Client() as client:
    before = client.whoami()
pid = os.fork()
with lading.sync.Client() as client:
    assert client.whoami() == before
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print("fine" if pid else "child", flush=True)
"""


def test_a_child_of_a_parent_that_had_closed_everything_connects(client: lading.sync.Client) -> None:
    client.close()
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "child\nfine\n"), done.stderr


_TRAINING = """
import sys, threading
import lading.sync

with lading.sync.init(run_id="stopped") as run:
    run.log({"loss": 1.0})
    logged = run.log_artifact(sys.argv[1], "big", "model")
    print("training", flush=True)
    if sys.argv[2] == "waiting":
        logged.result()
    threading.Event().wait()
"""


@pytest.mark.parametrize("where", ["waiting", "training"])
def test_ctrl_c_leaves_a_failed_run_and_nothing_half_made(
    client: lading.sync.Client, tmp_path: Path, where: str
) -> None:
    big = make(tmp_path, {"big": bytes(512 << 20)}) / "big"
    command = [sys.executable, "-c", _TRAINING, str(big), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    details = client.run("stopped")
    assert (details.state, details.outputs) == (lading.RunState.FAILED, ())


def test_a_script_that_forgets_its_run_exits(client: lading.sync.Client, tmp_path: Path) -> None:
    make(tmp_path, {"model": bytes(64 << 20)})
    code = (
        "import sys, lading.sync\n"
        "run = lading.sync.init(run_id='forgotten').start()\n"
        "run.log({'loss': 1.0})\n"
        "run.log_artifact(sys.argv[1], 'mlp', 'model')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert client.run("forgotten").state is lading.RunState.RUNNING
