"""The cache by itself: what is put in, what comes out, what goes, and a directory that is broken or hostile."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lading
from lading._cache import eviction, filling
from lading._cache.settings import DEFAULT_LIMIT_BYTES
from lading._cache.space import Entry
from lading._cache.store import CONTENT, Store
from lading._cache.tally import add_to_tally, read_tally, set_tally
from lading._cache.transfer import Transfer
from lading._files import SafeRoot
from lading_format.digest import blake3_digest, format_digest

HOUR_NS = 3600 * 10**9


@dataclass
class Place:
    path: str
    executable: bool = False


@dataclass
class Blob:
    data: bytes
    targets: list[Place] = field(default_factory=lambda: [Place("out")])

    @property
    def digest(self) -> bytes:
        return blake3_digest(self.data)

    @property
    def size_bytes(self) -> int:
        return len(self.data)


@pytest.fixture
def cache(tmp_path: Path) -> lading.LocalCache:
    """A cache that is not there yet."""
    return lading.LocalCache(tmp_path / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[SafeRoot]:
    """Where downloads go."""
    with SafeRoot(tmp_path / "root") as safe_root:
        safe_root.open_partial()
        yield safe_root


def opened(cache: lading.LocalCache, *, links: bool = False) -> Transfer:
    transfer = cache.transfer(threading.Event(), links=links)
    assert transfer is not None
    return transfer


def keep(cache: lading.LocalCache, *datas: bytes) -> None:
    with opened(cache) as transfer:
        for data in datas:
            assert transfer.keep(blake3_digest(data), data)


def entry(cache: lading.LocalCache, data: bytes) -> Path:
    name = blake3_digest(data).hex()
    return Path(cache.directory, CONTENT, name[:2], name)


def given(cache: lading.LocalCache, root: SafeRoot, blob: Blob, *, links: bool = False) -> bool:
    with opened(cache, links=links) as transfer:
        return bool(transfer.give(root, [blob]))


def test_what_was_kept_is_given_and_is_a_file_of_its_own(cache: lading.LocalCache, root: SafeRoot) -> None:
    data = os.urandom(700_001)
    keep(cache, data)
    blob = Blob(data, [Place("a/plain"), Place("b/run", executable=True), Place("c")])
    assert given(cache, root, blob)
    for place in blob.targets:
        path = Path(root.name, place.path)
        assert path.read_bytes() == data
        assert os.access(path, os.X_OK) == place.executable
        assert path.stat().st_nlink == 1
        path.write_bytes(b"edited")
    assert entry(cache, data).read_bytes() == data
    assert entry(cache, data).stat().st_mode & 0o777 == 0o444


def test_what_is_not_there_is_not_given(cache: lading.LocalCache, root: SafeRoot) -> None:
    assert not given(cache, root, Blob(b"never seen"))
    assert os.listdir(root.partial_fd) == []


def test_hard_links_are_of_the_entry_and_executable_files_are_not(cache: lading.LocalCache, root: SafeRoot) -> None:
    data = b"weights" * 1000
    keep(cache, data)
    blob = Blob(data, [Place("plain"), Place("twin"), Place("run", executable=True)])
    # Twice, for a name that is there already is another case for rename.
    for _ in range(2):
        assert given(cache, root, blob, links=True)
        for name in ("plain", "twin"):
            assert os.path.samefile(Path(root.name, name), entry(cache, data))
        assert not os.path.samefile(Path(root.name, "run"), entry(cache, data))
        assert os.access(Path(root.name, "run"), os.X_OK)
        assert os.listdir(root.partial_fd) == []


def test_an_edit_of_a_hard_link_is_found_and_not_given_on(cache: lading.LocalCache, root: SafeRoot) -> None:
    data = b"weights" * 1000
    keep(cache, data)
    assert given(cache, root, Blob(data), links=True)
    linked = Path(root.name, "out")
    linked.chmod(0o644)
    linked.write_bytes(b"edited!" * 1000)
    assert not given(cache, root, Blob(data, [Place("other")]), links=True)
    assert not entry(cache, data).exists()
    assert linked.read_bytes() == b"edited!" * 1000


def _flip_a_byte(path: Path) -> None:
    status = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _truncate(path: Path) -> None:
    os.truncate(path, 10)


def _replace_by_a_link(path: Path) -> None:
    other = path.parent / "other"
    path.rename(other)
    path.symlink_to(other)


def _replace_by_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def _replace_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = [_flip_a_byte, _truncate, _replace_by_a_link, _replace_by_a_directory, _replace_by_a_fifo]


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_dropped_and_never_given(
    cache: lading.LocalCache, root: SafeRoot, damage: Callable[[Path], None], links: bool
) -> None:
    data = os.urandom(300_000)
    keep(cache, data)
    damage(entry(cache, data))
    assert not given(cache, root, Blob(data), links=links)
    assert not Path(root.name, "out").exists()
    assert not os.path.lexists(entry(cache, data))
    assert cache.open_blob(format_digest(blake3_digest(data))) is None
    keep(cache, data)
    assert given(cache, root, Blob(data), links=links)
    assert Path(root.name, "out").read_bytes() == data


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_not_opened(cache: lading.LocalCache, damage: Callable[[Path], None]) -> None:
    data = os.urandom(300_000)
    keep(cache, data)
    damage(entry(cache, data))
    assert cache.open_blob(format_digest(blake3_digest(data))) is None
    assert not os.path.lexists(entry(cache, data))


def test_what_is_no_digest_is_not_there_and_opens_nothing(cache: lading.LocalCache) -> None:
    keep(cache, b"x")
    before = len(os.listdir("/proc/self/fd"))
    assert cache.open_blob("b3:xyz") is None
    assert cache.listing("b3:xyz") is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_entry_that_may_not_be_read_is_dropped(
    cache: lading.LocalCache, root: SafeRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"secret" * 100
    keep(cache, data)
    # Whoever runs the tests may be root, who reads everything: so the system's answer stands in for the mode.
    real = os.open

    def refused(path: str, *arguments: int, **named: int) -> int:
        if path == entry(cache, data).name:
            raise PermissionError(errno.EACCES, "refused")
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        assert not given(cache, root, Blob(data))
    assert not entry(cache, data).exists()


def test_a_shard_that_became_a_link_is_not_followed(cache: lading.LocalCache, root: SafeRoot, tmp_path: Path) -> None:
    data = b"data" * 100
    keep(cache, data)
    shard = entry(cache, data).parent
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert not given(cache, root, Blob(data))
    assert (tmp_path / "elsewhere" / entry(cache, data).name).read_bytes() == data
    keep(cache, data)
    assert not shard.is_symlink()
    assert given(cache, root, Blob(data))


def test_a_directory_that_others_may_write_to_is_not_used(
    cache: lading.LocalCache, caplog: pytest.LogCaptureFixture
) -> None:
    keep(cache, b"x")
    Path(cache.directory, CONTENT).chmod(0o770)
    assert cache.transfer(threading.Event()) is None
    assert "nobody else may write to it" in caplog.text
    with pytest.raises(OSError, match="nobody else"):
        cache.info()


def test_a_directory_of_another_user_or_a_link_to_one_is_not_used(
    cache: lading.LocalCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cache, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert cache.transfer(threading.Event()) is None
    content = Path(cache.directory, CONTENT)
    content.rename(tmp_path / "elsewhere")
    content.symlink_to(tmp_path / "elsewhere")
    assert cache.transfer(threading.Event()) is None


def test_a_cache_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert lading.LocalCache(tmp_path / "file" / "cache").transfer(threading.Event()) is None
    assert "is not used" in caplog.text


def test_a_disk_that_is_full_keeps_nothing_and_fails_nothing(
    cache: lading.LocalCache, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    small, large = b"s" * 1000, b"l" * 100_000
    with opened(cache) as transfer:
        # The system refuses the write in its middle, as a full disk does; SIGXFSZ is ignored by Python.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        try:
            assert not transfer.keep(blake3_digest(large), large)
            assert transfer.keep(blake3_digest(small), small)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "is not kept" in caplog.text
    assert not entry(cache, large).exists()
    assert os.listdir(Path(cache.directory, CONTENT, "new")) == []
    assert cache.verify().checked == 1


def test_a_disk_that_refuses_again_and_again_is_not_asked_any_more(
    cache: lading.LocalCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def refuse(fd: int, data: bytes) -> None:
        asked.append(fd)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filling, "write_all", refuse)
    with opened(cache) as transfer:
        for number in range(20):
            assert not transfer.keep(blake3_digest(bytes([number])), bytes([number]))
    assert len(asked) == filling._FAILURES_AT_MOST
    assert len(caplog.records) == 1


def test_nothing_is_kept_where_the_disk_has_to_stay_free(
    cache: lading.LocalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "free_bytes", lambda _store: (6_000, 1_000))
    with opened(cache) as transfer:
        assert not transfer.keep(blake3_digest(b"x" * 5_000), b"x" * 5_000)
        assert transfer.keep(blake3_digest(b"x"), b"x")


def test_the_least_recently_used_goes_first_and_a_use_is_one(cache: lading.LocalCache, root: SafeRoot) -> None:
    datas = [bytes([number]) * 10_000 for number in range(10)]
    keep(cache, *datas)
    for age, data in enumerate(datas):
        path = entry(cache, data)
        os.utime(path, ns=(path.stat().st_atime_ns - (20 - age) * HOUR_NS, path.stat().st_mtime_ns))
    assert given(cache, root, Blob(datas[0]))
    done = cache.prune(7 * 12_288)
    # Nine tenths of what may be left: six.
    assert (done.entries, done.left_bytes) == (4, 6 * 12_288)
    assert [entry(cache, data).exists() for data in datas] == [True, False, False, False, False, *[True] * 5]
    modified = [entry(cache, data).stat().st_mtime_ns for data in datas[5:]]
    assert given(cache, root, Blob(datas[5]))
    assert [entry(cache, data).stat().st_mtime_ns for data in datas[5:]] == modified


def test_a_cache_stays_within_its_limit_while_it_is_filled(tmp_path: Path) -> None:
    limit_bytes = 2 << 20
    cache = lading.LocalCache(tmp_path / "cache", limit_bytes)
    for turn in range(6):
        keep(cache, *[os.urandom(50_000) for _ in range(20)])
        assert cache.info().size_bytes <= limit_bytes + limit_bytes // 16 + 53_248, turn
    assert cache.info().size_bytes > limit_bytes // 2


def test_a_data_set_larger_than_the_cache_does_not_push_itself_out(tmp_path: Path) -> None:
    cache = lading.LocalCache(tmp_path / "cache", 1 << 20)
    datas = [os.urandom(100_000) for _ in range(20)]
    with opened(cache) as transfer:
        kept = [transfer.keep(blake3_digest(data), data) for data in datas]
    assert kept == [True] * 9 + [False] * 11
    assert [entry(cache, data).exists() for data in datas] == kept


def test_a_pass_over_a_part_of_a_large_cache_brings_it_down_step_by_step(
    cache: lading.LocalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    datas = [number.to_bytes(4, "little") for number in range(2_000)]
    keep(cache, *datas)
    limit_bytes = 1_000 * 4_096
    looked: list[int] = []
    real = Store.scan

    def scan(store: Store, shard: str) -> list[Entry]:
        looked[-1] += len(found := real(store, shard))
        return found

    monkeypatch.setattr(Store, "scan", scan)
    with Store(cache.directory) as store:
        for _ in range(100):
            looked.append(0)
            done = eviction.evict(store, limit_bytes, look_at_most=500)
            if not done.entries:
                break
    assert max(looked) < 600
    left = cache.info().files
    assert 700 < left < 1_150  # by a sample, so about


def test_what_a_killed_process_left_goes_after_an_hour(cache: lading.LocalCache) -> None:
    keep(cache, b"x")
    with Store(cache.directory) as store:
        fd, name = store.create()
        os.close(fd)
        store.clear_abandoned()
        assert os.listdir(store.new_fd) == [name]
        written = os.stat(name, dir_fd=store.new_fd).st_mtime
        store.clear_abandoned(written + 3601)
        assert os.listdir(store.new_fd) == []


@pytest.mark.parametrize("damage", [b"", b"123", b"\xff" * 8, bytes(8 * 5000)])
def test_a_tally_that_cannot_be_right_is_counted_anew(cache: lading.LocalCache, damage: bytes) -> None:
    keep(cache, b"x" * 5_000)
    with Store(cache.directory) as store:
        assert read_tally(store) == 8_192
        Path(cache.directory, CONTENT, "tally").write_bytes(damage)
        assert read_tally(store) is None
        keep(cache, b"y")
        assert read_tally(store) == 12_288
        add_to_tally(store, -4_096)
        assert read_tally(store) == 8_192
        set_tally(store, 7)
        assert read_tally(store) == 7


def test_a_check_reads_everything_and_drops_what_is_wrong(cache: lading.LocalCache) -> None:
    datas = [os.urandom(50_000) for _ in range(len(DAMAGE) + 2)]
    keep(cache, *datas)
    for damage, data in zip(DAMAGE, datas, strict=False):
        damage(entry(cache, data))
    found = cache.verify()
    assert not found.ok
    assert found.checked == len(datas)
    assert found.dropped == tuple(sorted(format_digest(blake3_digest(data)) for data in datas[: len(DAMAGE)]))
    assert cache.verify() == lading.CacheCheck(2, 2 * 53_248)


def test_what_is_not_there_can_be_told_pruned_and_verified(cache: lading.LocalCache) -> None:
    told = cache.info()
    assert (told.files, told.trees, told.size_bytes, told.oldest_use) == (0, 0, 0, None)
    assert cache.prune(0) == lading.CachePruned(0, 0, 0)
    assert cache.verify().ok
    assert cache.open_blob(format_digest(bytes(32))) is None
    assert not os.path.exists(cache.directory)


def test_other_files_in_the_directory_are_left_alone(cache: lading.LocalCache) -> None:
    keep(cache, b"x")
    strangers = [entry(cache, b"x").parent / "notes.txt", Path(cache.directory) / "digests.sqlite3"]
    for path in strangers:
        path.write_bytes(b"mine")
    assert cache.prune(0).entries == 1
    assert all(path.read_bytes() == b"mine" for path in strangers)


def test_no_descriptor_is_left_open(cache: lading.LocalCache, root: SafeRoot) -> None:
    before = len(os.listdir("/proc/self/fd"))
    keep(cache, b"x" * 100)
    assert given(cache, root, Blob(b"x" * 100))
    assert given(cache, root, Blob(b"x" * 100), links=True)
    _truncate(entry(cache, b"x" * 100))
    assert not given(cache, root, Blob(b"x" * 100))
    cache.verify()
    cache.info()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_variables_say_where_it_is_and_how_large(tmp_path: Path) -> None:
    of = lading.LocalCache.from_environment
    assert of({"LADING_CACHE_DIR": ""}) is None
    assert of({"LADING_CACHE_DIR": "off"}) is None
    users = of({})
    assert users is not None
    assert users.limit_bytes == DEFAULT_LIMIT_BYTES
    named = of({"LADING_CACHE_DIR": str(tmp_path), "LADING_CACHE_BYTES": "12"})
    assert named is not None
    assert (named.directory, named.limit_bytes) == (str(tmp_path), 12)
    for text in ("12 GB", "-1", "1e9", "٣"):
        with pytest.raises(lading.InvalidArgument, match="LADING_CACHE_BYTES"):
            of({"LADING_CACHE_BYTES": text})
    none = of({"LADING_CACHE_DIR": str(tmp_path / "c"), "LADING_CACHE_BYTES": "0"})
    assert none is not None
    assert none.transfer(threading.Event()) is None
    assert not (tmp_path / "c").exists()


def test_a_fork_inherits_nothing_and_both_sides_go_on(
    cache: lading.LocalCache, root: SafeRoot, forked: Callable[[Callable[[], None]], int]
) -> None:
    keep(cache, b"before")

    def child() -> None:
        keep(cache, b"child")
        assert given(cache, root, Blob(b"before", [Place("child")]))

    assert forked(child) == 0
    keep(cache, b"parent")
    assert cache.verify().checked == 3
    assert given(cache, root, Blob(b"child"))
