"""Plain files: made of verified chunks, checked before they are handed out, gone without harm."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import ChunkCorruptedError, OutOfSpaceError
from shardfs.formats.tree import FileEntry
from shardfs.repository import Repository

MIB = 1 << 20
SIZE = 3 * MIB + 17
CONTENT = os.urandom(SIZE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.bin").write_bytes(CONTENT)
    (folder / "small").write_bytes(b"small")
    (folder / "empty").touch()
    with shardfs.init(folder) as repo:
        repo.add([folder / name for name in ("model.bin", "small", "empty")])
        repo.commit("first")
    return folder


@pytest.fixture
def repo(project: Path) -> Iterator[Repository]:
    with shardfs.open(project) as found:
        yield found


def entry(repo: Repository, path: str = "model.bin") -> FileEntry:
    found = repo.entry("HEAD", path)
    assert isinstance(found, FileEntry)
    return found


def eventually(check: Callable[[], object]) -> None:
    """Wait for what happens in the background."""
    while not check():
        time.sleep(0.005)


def content(repo: Repository, path: str = "model.bin") -> bytes | None:
    fd = repo.plain_file(entry(repo, path))
    if fd is None:
        return None
    try:
        return os.pread(fd, SIZE + 1, 0)
    finally:
        os.close(fd)


def counters(repo: Repository) -> dict[str, int]:
    found: dict[str, int] = repo.stats_snapshot()["plain_files"]._asdict()
    return found


def warmed(repo: Repository) -> Path:
    """A repository whose model has a plain file."""
    repo.note_read(entry(repo), 2 * SIZE)
    eventually(lambda: content(repo))
    path = repo.plain_path(entry(repo))
    assert path is not None
    return path


def test_file_that_was_served_twice_is_made(repo: Repository) -> None:
    assert content(repo) is None
    repo.note_read(entry(repo), 2 * SIZE - 1)
    assert counters(repo)["files"] == 0
    repo.note_read(entry(repo), 1)
    eventually(lambda: content(repo))
    assert content(repo) == CONTENT
    found = counters(repo)
    assert (found["files"], found["bytes"], found["made"], found["checked"]) == (1, SIZE, 1, 0)
    assert found["served"] >= 2


def test_file_is_private_and_named_by_content(repo: Repository) -> None:
    path = warmed(repo)
    id_ = entry(repo).manifest
    assert id_ is not None
    assert path.name == id_.hex()
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_small_and_empty_files_are_left_to_the_kernel(repo: Repository) -> None:
    for name in ("small", "empty"):
        repo.note_read(entry(repo, name), 100)
        assert content(repo, name) is None
    warmed(repo)
    assert counters(repo)["made"] == 1


def test_file_of_more_than_half_the_cache_is_not_made(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", str(2 * SIZE - 1))
    with shardfs.open(project) as repo:
        repo.note_read(entry(repo), 2 * SIZE)
        assert not repo._tier._wanted


def test_switched_off(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shardfs.open(project) as repo:
        warmed(repo)
    monkeypatch.setenv("SHARDFS_CACHE_FILES", "false")
    with shardfs.open(project) as repo:
        repo.note_read(entry(repo), 2 * SIZE)
        assert content(repo) is None
        assert counters(repo)["files"] == 0


def test_next_process_checks_before_it_hands_out(project: Path) -> None:
    with shardfs.open(project) as repo:
        warmed(repo)
    with shardfs.open(project) as repo:
        assert content(repo) is None, "not checked by this one yet"
        eventually(lambda: content(repo))
        assert content(repo) == CONTENT
        assert (counters(repo)["checked"], counters(repo)["made"]) == (1, 0)


@pytest.mark.parametrize("offset", [0, SIZE // 2, SIZE - 1])
def test_flipped_bit_is_never_handed_out(project: Path, offset: int) -> None:
    with shardfs.open(project) as repo:
        path = warmed(repo)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([CONTENT[offset] ^ 1]))
    with shardfs.open(project) as repo:
        assert content(repo) is None
        eventually(lambda: counters(repo)["damaged"])
        assert content(repo) is None
        assert not path.exists()
        assert repo.open_entry(entry(repo)).read_at(0, SIZE) == CONTENT
        assert warmed(repo).read_bytes() == CONTENT


def test_change_after_the_check_is_seen(repo: Repository) -> None:
    path = warmed(repo)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"X")
    assert content(repo) is None
    eventually(lambda: counters(repo)["damaged"])
    assert not path.exists()


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_file_of_another_size_is_deleted(repo: Repository, size: int) -> None:
    path = warmed(repo)
    path.chmod(0o600)
    os.truncate(path, size)
    assert content(repo) is None
    eventually(lambda: not path.exists())
    assert warmed(repo).read_bytes() == CONTENT


def test_use_is_told_to_other_processes(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.store.plain_files._TELL_INTERVAL_S", 0)

    def used() -> int:
        with closing(sqlite3.connect(repo._cache.directory / "v3" / "cache.sqlite")) as index:
            [row] = index.execute("SELECT used FROM files")
        return int(row[0])

    warmed(repo)
    before = used()
    eventually(lambda: content(repo) and used() > before)


def test_open_descriptor_survives_eviction(repo: Repository) -> None:
    warmed(repo)
    fd = repo.plain_file(entry(repo))
    assert fd is not None
    repo._cache.clear()
    assert content(repo) is None
    assert counters(repo)["evicted"] == 1
    assert os.pread(fd, SIZE, 0) == CONTENT
    os.close(fd)


def test_deleted_cache_is_made_again(repo: Repository) -> None:
    import shutil

    path = warmed(repo)
    shutil.rmtree(path.parents[2])
    assert content(repo) is None
    assert warmed(repo).read_bytes() == CONTENT


def test_nothing_leaks_descriptors(repo: Repository) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    warmed(repo)
    repo._cache.clear()
    warmed(repo)
    before = descriptors()
    for _ in range(5):
        repo._cache.clear()
        warmed(repo)
        content(repo)
        repo.plain_path(entry(repo))
    assert descriptors() <= before


def test_lost_source_makes_no_file(repo: Repository) -> None:
    last = CONTENT[-64:]
    for pack in (repo.store_path / "packs").rglob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes().replace(last, bytes(64)))
    repo.note_read(entry(repo), 2 * SIZE)
    eventually(lambda: not repo._tier._wanted)
    assert content(repo) is None
    assert not list(repo._cache.directory.glob("v3/files/*"))


def test_forked_child_has_its_own_worker(repo: Repository) -> None:
    warmed(repo)
    pid = os.fork()
    if pid == 0:
        repo._cache.clear()
        os._exit(0 if warmed(repo).read_bytes() == CONTENT else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_full_disk_makes_no_file_and_reads_go_on(repo: Repository) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        assert not repo._tier.make(entry(repo))
        assert list(repo._cache.directory.glob("v3/files/*")) == []
        assert repo.open_entry(entry(repo)).read_at(0, SIZE) == CONTENT
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_cache_that_cannot_be_used(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SHARDFS_CACHE_DIR", str(tmp_path / "file"))
    with shardfs.open(project) as repo:
        repo.note_read(entry(repo), 2 * SIZE)
        assert content(repo) is None
        assert repo.plain_path(entry(repo)) is None
        assert not repo._tier.make(entry(repo))
        assert set(counters(repo).values()) == {0}
        assert repo.evict() == 0
        assert repo.presence("HEAD").plain == 0
        with pytest.raises(OutOfSpaceError, match="cannot be used"):
            repo.warm("HEAD")


def test_closed_repository_leaves_nothing_open(project: Path) -> None:
    def targets() -> set[str]:
        found = set()
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(str(link.readlink()))
        return found

    for _ in range(3):
        with shardfs.open(project) as repo:
            warmed(repo)
            repo.note_read(entry(repo), 2 * SIZE)
            repo._cache.clear()
            folder = str(repo._cache.directory)
    eventually(lambda: not any(target.startswith(folder) for target in targets()))


def test_what_is_pinned_is_read_without_the_remote(project: Path, tmp_path: Path) -> None:
    shardfs.clone(str(project / ".shardfs"), tmp_path / "clone").close()
    with shardfs.open(tmp_path / "clone") as lazy:
        lazy.pin("HEAD", "model.bin")
        assert lazy.reader.settle()  # what came would be in the cache again
        assert lazy.chunks.settle()
        lazy._cache.evict({chunk.id for chunk in lazy.open_entry(entry(lazy)).manifest.chunks})
        kept = lazy.plain_path(entry(lazy))
        assert kept is not None
    project.rename(tmp_path / "elsewhere")
    with shardfs.open(tmp_path / "clone") as lazy, lazy.read("HEAD:model.bin") as file:
        assert file.read() == CONTENT
        assert b"".join(lazy.open_once(entry(lazy)).blocks()) == CONTENT
    kept.chmod(0o600)
    with kept.open("r+b") as damaged:
        damaged.write(bytes(8))
    with shardfs.open(tmp_path / "clone") as lazy, lazy.read("HEAD:model.bin") as file:
        with pytest.raises(ChunkCorruptedError):
            file.read()
        sound = lazy.open_entry(entry(lazy)).manifest.chunks[0].size
        file.seek(sound)
        assert file.read() == CONTENT[sound:]
