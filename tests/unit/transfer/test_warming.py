"""Files brought here before they are needed, kept, and thrown out again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import ConflictError, OutOfSpaceError, PathNotFoundError, RefNotFoundError, UsageError
from shardfs.formats.ids import PackId
from shardfs.remotes.directory import DirectoryRemote
from shardfs.repository import Repository

MIB = 1 << 20
BIG, OTHER = os.urandom(5 * MIB), os.urandom(2 * MIB)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with a directory of two files, a twin of one of them, a small file and an empty one."""
    folder = tmp_path / "origin"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "big.bin").write_bytes(BIG)
    (folder / "weights" / "other.bin").write_bytes(OTHER)
    (folder / "twin.bin").write_bytes(BIG)
    (folder / "readme").write_text("small")
    (folder / "empty").touch()
    (folder / "link").symlink_to("readme")
    with shardfs.init(folder) as repo:
        repo.add([folder])
        repo.commit("first")
        repo.create_tag("v1")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Iterator[Repository]:
    """A lazy clone."""
    with shardfs.clone(str(origin / ".shardfs"), tmp_path / "clone") as repo:
        yield repo


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each request to the remote."""
    real, found = DirectoryRemote.read_pack, list[int]()

    def read_pack(self: DirectoryRemote, pack_id: PackId, offset: int, length: int) -> bytes:
        found.append(length)
        return real(self, pack_id, offset, length)

    monkeypatch.setattr(DirectoryRemote, "read_pack", read_pack)
    return found


def plain_files(repo: Repository) -> int:
    return int(repo.stats_snapshot()["plain_files"].files)


def test_warm_brings_each_content_once(clone: Repository, sent: list[int]) -> None:
    before = clone.presence("v1")
    assert (before.files, before.plain, before.packs, before.missing) == (3, 0, 0, before.bytes)
    report = clone.warm("v1")
    assert (report.files, report.made, report.bytes, report.fetched_bytes) == (3, 3, before.bytes, before.bytes)
    assert before.bytes == len(BIG) + len(OTHER) + 5
    after = clone.presence("v1")
    assert (after.plain_files, after.plain, after.missing) == (3, after.bytes, 0)
    asked = len(sent)
    again = clone.warm("v1")
    assert (again.made, again.fetched_bytes) == (0, 0)
    assert len(sent) == asked


def test_warm_files_read_without_the_remote(clone: Repository, origin: Path) -> None:
    clone.warm("v1", "weights")
    assert clone.presence("v1", "weights").missing == 0
    origin.rename(origin.with_name("gone"))
    with clone.read("v1:weights/big.bin") as file:
        assert file.read() == BIG


def test_warm_of_one_file(clone: Repository) -> None:
    assert clone.warm("v1", "weights/other.bin").bytes == len(OTHER)
    assert plain_files(clone) == 1
    for path in ("nothing", "link"):
        with pytest.raises(PathNotFoundError):
            clone.warm("v1", path)


def test_interrupted_warm_goes_on_where_it_was(clone: Repository, sent: list[int]) -> None:
    def interrupt(done: int, total: int | None, what: str) -> None:
        del total, what
        if done >= 3 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone.warm("v1", "weights/big.bin", progress=interrupt)
    assert plain_files(clone) == 0
    assert list(clone._cache.directory.glob("v3/files/*")) == []
    first = sum(sent)
    assert clone.warm("v1", "weights/big.bin").made == 1
    assert sum(sent) - first <= len(BIG) - 2 * MIB


def test_progress_reaches_the_total(clone: Repository) -> None:
    told: list[tuple[int, int | None]] = []
    clone.warm("v1", progress=lambda done, total, _: told.append((done, total)))
    assert told[-1] == (clone.presence("v1").bytes,) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_warm_without_files_brings_chunks(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[int]
) -> None:
    monkeypatch.setenv("SHARDFS_CACHE_FILES", "false")
    with shardfs.clone(str(origin / ".shardfs"), tmp_path / "clone") as repo:
        sent.clear()
        assert repo.warm("v1").made == 0
        assert repo.presence("v1").missing == 0
        assert repo.presence("v1").cache == repo.presence("v1").bytes
        with pytest.raises(UsageError, match=r"cache\.files"):
            repo.pin("v1")


def test_what_does_not_fit_is_refused_before_anything_is_fetched(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[int]
) -> None:
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", "6M")
    with shardfs.clone(str(origin / ".shardfs"), tmp_path / "clone") as repo:
        sent.clear()
        for wish in (repo.warm, repo.pin):
            with pytest.raises(OutOfSpaceError, match=r"cache\.size"):
                wish("v1")
        assert sent == []
        assert repo.pins() == []


def test_page_cache_reads_the_files(clone: Repository) -> None:
    assert clone.warm("v1", page_cache=True).page_cache_bytes == clone.presence("v1").bytes


def test_tensors_bring_their_chunks_alone(
    tmp_path: Path, safetensors_of: Callable[[dict[str, int]], bytes], sent: list[int]
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "m.safetensors").write_bytes(safetensors_of({"a.w": 4 * MIB, "b.w": 4 * MIB, "c.w": 24 * MIB}))
    with shardfs.init(origin) as repo:
        repo.add([origin])
        repo.commit("first")
    with shardfs.clone(str(origin / ".shardfs"), tmp_path / "clone") as repo:
        sent.clear()
        planned = repo.plan_prefetch("HEAD", tensors="[ab].*")
        report = repo.prefetch("HEAD", tensors="[ab].*")
        assert (report.tensors, report.files) == (2, 1)
        assert 8 * MIB <= report.bytes <= 10 * MIB
        assert planned == report
        assert report.fetched_bytes <= sum(sent) < 12 * MIB
        assert repo.prefetch("HEAD", tensors="[ab].*").fetched_bytes == 0
        assert repo.presence("HEAD").missing >= 14 * MIB
        with pytest.raises(PathNotFoundError, match="no tensor"):
            repo.prefetch("HEAD", tensors="nothing*")


@pytest.fixture
def safetensors_of() -> Callable[[dict[str, int]], bytes]:
    """Makes a safetensors file of noise, by sizes in bytes of its tensors."""

    def make(sizes: dict[str, int]) -> bytes:
        import numpy as np
        from safetensors.numpy import save

        chance = np.random.default_rng(1)
        data = save({name: chance.integers(0, 256, size, dtype=np.uint8) for name, size in sizes.items()})
        assert isinstance(data, bytes)
        return data

    return make


def test_pinned_files_stay(clone: Repository) -> None:
    clone.pin("v1", "weights")
    [state] = clone.pins()
    assert (state.pin.name, state.here, state.is_gone) == ("v1:weights", len(BIG) + len(OTHER), False)
    clone.warm("v1", "readme")
    assert clone.evict() > 0
    assert clone.presence("v1").plain == len(BIG) + len(OTHER)
    with pytest.raises(ConflictError, match="v1:weights"):
        clone.evict("v1", "twin.bin")
    assert clone.unpin("v1", "weights") == ["v1:weights"]
    assert clone.pins() == []
    assert len(BIG) + len(OTHER) <= clone.evict() < len(BIG) + len(OTHER) + MIB
    assert clone.presence("v1").plain == 0


def test_pins_outlive_the_index(clone: Repository) -> None:
    clone.pin("v1")
    clone.close()
    (clone._cache.directory / "v3" / "cache.sqlite").write_bytes(b"no database" * 1000)
    with shardfs.open(clone.store_path) as again:
        [state] = again.pins()
        assert (state.pin.name, state.here) == ("v1", 0)
        again.pin("v1")
        assert again.pins()[0].here == again.presence("v1").bytes


def test_unpin_finds_other_names_of_the_commit(clone: Repository) -> None:
    clone.pin("v1")
    assert clone.unpin("HEAD") == ["v1"]
    with pytest.raises(RefNotFoundError, match="not pinned"):
        clone.unpin("v1")
    clone.pin("v1")
    clone.pin("v1", "weights")
    assert clone.unpin() == ["v1", "v1:weights"]


def test_failed_pin_is_taken_back(clone: Repository, origin: Path) -> None:
    origin.rename(origin.with_name("gone"))
    with pytest.raises(shardfs.errors.ShardfsError):
        clone.pin("v1")
    assert clone.pins() == []


def test_pins_of_a_repository_that_is_gone(clone: Repository, origin: Path, tmp_path: Path) -> None:
    clone.pin("v1")
    clone.close()
    (tmp_path / "clone").rename(tmp_path / "elsewhere")
    with shardfs.open(tmp_path / "elsewhere") as moved:
        assert [state.is_gone for state in moved.pins()] == [True]
        moved.evict(force=True)
        assert moved.pins() == []
        assert moved.presence("v1").plain == 0


def test_evict_forgets_one_revision(clone: Repository, origin: Path) -> None:
    clone.warm("v1")
    freed = clone.evict("v1", "weights")
    assert freed >= len(BIG) + len(OTHER)
    found = clone.presence("v1")
    assert (found.plain, found.missing) == (5, len(BIG) + len(OTHER))
    with clone.read("v1:weights/big.bin") as file:
        assert file.read() == BIG


@pytest.mark.parametrize("is_pinned", [True, False])
def test_gc_keeps_what_is_pinned(origin: Path, monkeypatch: pytest.MonkeyPatch, is_pinned: bool) -> None:
    monkeypatch.chdir(origin)
    with shardfs.open(origin) as repo:
        (origin / "new.bin").write_bytes(os.urandom(MIB))
        repo.add(["new.bin"])
        commit = repo.commit("second")
        if is_pinned:
            repo.pin(commit.hex(), "new.bin")
        repo.create_branch("old", "v1")
        main = repo.current_branch()
        assert main is not None
        repo.switch("old")
        repo.delete_branch(main, force=True)
        for log in (repo.store_path / "logs").rglob("*"):
            if log.is_file():
                log.unlink()
    with shardfs.open(origin) as repo:
        repo.gc(grace_s=0)
        assert bool(repo.store.index.has([commit])) == is_pinned
