"""Plain files behind a mount: made, damaged, evicted and warmed while programs read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.mount import reading
from shardfs.repository import Repository
from tests.cli.conftest import Shell
from tests.mount.conftest import Mounted, eventually, make_project, mounting, private_folders, stopped
from tests.stores import noise

pytestmark = pytest.mark.fuse

DATA = noise(7, 5 << 20)
REAL_PATH = "user.shardfs.realpath"


@pytest.fixture
def own_home(tmp_path: Path) -> Path:
    """A cache for each test."""
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path, own_home: Path) -> Path:
    folder = tmp_path / "project"
    with private_folders(own_home):
        make_project(folder, {"model.bin": DATA, "small": b"small"}, "one")
    return folder


@pytest.fixture
def mounted(project: Path, tmp_path: Path, own_home: Path) -> Iterator[Mounted]:
    with mounting(project, tmp_path / "models", own_home) as found:
        yield found


@pytest.fixture
def repo(project: Path, own_home: Path) -> Iterator[Repository]:
    """The same repository in this process, with the cache of the daemon."""
    with private_folders(own_home), shardfs.open(project) as found:
        yield found


def real_path(path: Path) -> Path | None:
    try:
        return Path(os.fsdecode(os.getxattr(path, REAL_PATH)))
    except OSError:
        return None


def counters(mounted: Mounted) -> dict[str, int]:
    found: dict[str, int] = mounted.stats()["plain_files"]
    return found


def read_anew(path: Path) -> bytes:
    """The content without what the kernel kept."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def test_reading_twice_makes_a_plain_file(mounted: Mounted) -> None:
    path = mounted.latest / "model.bin"
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, REAL_PATH)
    assert eventually(lambda: read_anew(path) == DATA and real_path(path) is not None, 20)
    real = real_path(path)
    assert real is not None
    assert real.read_bytes() == DATA
    found = counters(mounted)
    assert (found["files"], found["bytes"], found["made"], found["damaged"]) == (1, len(DATA), 1, 0)


def test_warmed_files_are_used_by_a_mount_that_is_there(mounted: Mounted, repo: Repository) -> None:
    path = mounted.latest / "model.bin"
    assert repo.warm("HEAD").made == 2
    assert eventually(lambda: real_path(path) is not None, 20)
    assert read_anew(path) == DATA
    assert counters(mounted)["made"] == 0


@pytest.mark.parametrize("offset", [0, len(DATA) // 2, len(DATA) - 1])
def test_damaged_plain_file_is_never_read(mounted: Mounted, repo: Repository, offset: int) -> None:
    repo.warm("HEAD", "model.bin")
    [real] = repo._cache.directory.glob("v3/files/*")
    real.chmod(0o600)
    with real.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([DATA[offset] ^ 1]))
    path = mounted.latest / "model.bin"
    assert read_anew(path) == DATA
    assert eventually(lambda: counters(mounted)["damaged"] == 1, 20)
    assert not real.exists()
    assert read_anew(path) == DATA


def test_eviction_by_another_process_disturbs_no_reader(mounted: Mounted, repo: Repository) -> None:
    path = mounted.latest / "model.bin"
    repo.warm("HEAD")
    assert eventually(lambda: real_path(path) is not None, 20)
    with path.open("rb", buffering=0) as open_before:
        assert repo.evict() >= len(DATA)
        assert real_path(path) is None
        assert read_anew(path) == DATA
        assert open_before.read() == DATA


def test_page_cache_is_filled_through_the_mount(
    mounted: Mounted, project: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_folders(own_home):
        found = Shell(project, monkeypatch)("warm", "HEAD", "--page-cache", "--json").json
    assert found["page_cache_bytes"] == found["mount_bytes"] == len(DATA) + 5
    with (mounted.latest / "model.bin").open("rb", buffering=0) as file, stopped(mounted):
        assert file.read() == DATA


def test_mount_that_does_not_answer_is_left_alone(mounted: Mounted) -> None:
    path = mounted.point.resolve() / "latest" / "model.bin"
    with stopped(mounted), pytest.raises(TimeoutError, match="gave nothing"):
        reading.read_all([path], 0.5, lambda _: None)


def test_files_that_cannot_be_read_are_an_error(mounted: Mounted) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        reading.read_all([mounted.latest / "missing"], 20, lambda _: None)
