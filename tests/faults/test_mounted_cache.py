"""The cache of a mount in trouble: every byte that programs read is right, and reads go on without it."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import shardfs
from tests.conftest import PRIVATE_FOLDERS
from tests.mount.conftest import Mounted, make_project, mounting
from tests.serving import Server, serving

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root"),
]

MIB = 1 << 20
FILES = {f"file {number}": random.Random(number).randbytes(MIB // 2) for number in range(10)}
DISK = "3m"  # less than FILES take


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one repository, `models`."""
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        for name in PRIVATE_FOLDERS:
            patch.setenv(name, str(root))
        make_project(root / "project", FILES)
        (root / "models").symlink_to(root / "project" / ".shardfs")
        with serving(root, "read-only") as server:
            yield server


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk for the cache, and a memory that keeps nothing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", folder], check=True)
    monkeypatch.setenv("SHARDFS_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", "10GiB")
    monkeypatch.setenv("SHARDFS_CACHE_MIN_FREE", "0")
    monkeypatch.setenv("SHARDFS_MEMORY_BUDGET", "1MiB")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def lazy(url: str, folder: Path) -> Iterator[Mounted]:
    """A mounted lazy clone."""
    shardfs.clone(f"{url}/models", folder / "clone").close()
    with mounting(folder / "clone", folder / "models", folder / "home") as mounted:
        yield mounted


def read(path: Path) -> bytes:
    """The content, from the daemon and not from the kernel's memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return b"".join(iter(lambda: os.read(fd, MIB), b""))
    finally:
        os.close(fd)


def all_is_right(mounted: Mounted) -> None:
    """Twice: from the remote, and from what was kept of that."""
    for _ in range(2):
        try:
            wrong = [name for name, data in FILES.items() if read(mounted.latest / name) != data]
        except OSError as error:
            error.add_note(mounted.errors())
            raise
        assert wrong == []
    assert mounted.errors() == ""


def kept(disk: Path) -> list[Path]:
    """The segments of the cache."""
    return sorted((disk / "cache").rglob("*.seg"))


def test_a_quota_larger_than_the_disk(served: Server, disk: Path, tmp_path: Path) -> None:
    with lazy(served.url, tmp_path) as mounted:
        all_is_right(mounted)
        assert kept(disk)


@pytest.mark.parametrize(("when", "leave"), [("before", 0), ("before", 40_000), ("while mounted", 0)])
def test_a_full_disk(served: Server, disk: Path, tmp_path: Path, when: str, leave: int) -> None:
    def fill() -> None:
        status = os.statvfs(disk)
        with suppress(OSError), (disk / "filler").open("wb", 0) as file:  # the cache may be writing, too
            file.write(bytes(max(0, status.f_bavail * status.f_frsize - leave)))

    if when == "before":
        fill()
    with lazy(served.url, tmp_path) as mounted:
        if when == "while mounted":
            assert read(mounted.latest / "file 0") == FILES["file 0"]
            fill()
        all_is_right(mounted)


@pytest.mark.parametrize("inodes", [2, 6])
def test_no_inodes_left(served: Server, disk: Path, tmp_path: Path, inodes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,nr_inodes={inodes}", disk], check=True)
    with lazy(served.url, tmp_path) as mounted:
        all_is_right(mounted)


@pytest.mark.parametrize("when", ["before", "while mounted"])
def test_a_disk_that_is_read_only(served: Server, disk: Path, tmp_path: Path, when: str) -> None:
    with ExitStack() as stack:
        if when == "before":
            stack.enter_context(read_only(disk))
        mounted = stack.enter_context(lazy(served.url, tmp_path))
        if when == "while mounted":
            assert read(mounted.latest / "file 0") == FILES["file 0"]
            stack.enter_context(read_only(disk))
        all_is_right(mounted)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Nobody opens a file for writing there, but open ones stay."""
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
    yield
    subprocess.run(["umount", "--lazy", disk], check=True)


def _delete(cache: Path) -> None:
    shutil.rmtree(cache)


def _file_instead(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.write_text("a file")


def _directories_instead(cache: Path) -> None:
    for path in [path for path in cache.rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()


def _another_owner(cache: Path) -> None:
    for path in (cache, *cache.rglob("*")):
        os.chown(path, 65534, 65534)


def _garbage(cache: Path) -> None:
    for path in [*cache.rglob("*.seg"), *cache.rglob("cache.sqlite")]:
        path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize(
    "harm",
    [_delete, _file_instead, _directories_instead, _another_owner, _garbage],
    ids=lambda harm: harm.__name__.strip("_").replace("_", " "),
)
def test_harm_to_the_cache_of_a_live_mount(
    served: Server, disk: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with lazy(served.url, tmp_path) as mounted:
        for name in ("file 0", "file 1", "file 2"):
            assert read(mounted.latest / name) == FILES[name]
        harm(disk / "cache")
        all_is_right(mounted)


@pytest.mark.parametrize("harm", ["flip", "empty"])
def test_what_is_damaged_and_cannot_be_fetched_is_an_error_and_nothing_else_is(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", "1GiB")
    monkeypatch.setenv("SHARDFS_DEADLINE", "1")
    root = tmp_path / "served"
    files = {name: FILES[name] for name in ("file 0", "file 1", "file 2")}
    make_project(tmp_path / "project", files)
    root.mkdir()
    (root / "models").symlink_to(tmp_path / "project" / ".shardfs")
    with serving(root, "read-only") as server, lazy(server.url, tmp_path) as mounted:
        for name, data in files.items():
            assert read(mounted.latest / name) == data
        server.kill()
        server.process.wait()
        _harm_middle(kept(disk), FILES["file 1"], harm)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is tested
            read(mounted.latest / "file 1")
        assert caught.value.errno == errno.EIO
        assert "file 1" in mounted.errors()
        if harm == "flip":
            for name in ("file 0", "file 2"):
                assert read(mounted.latest / name) == files[name]


def _harm_middle(segments: list[Path], data: bytes, harm: str) -> None:
    """Damage the one copy of a content that does not compress."""
    [(segment, place)] = [(s, at) for s in segments if (at := s.read_bytes().find(data[1000:2000])) >= 0]
    if harm == "flip":
        with segment.open("r+b") as file:
            file.seek(place)
            file.write(bytes([data[1000] ^ 1]))
    else:
        os.truncate(segment, 0)


def test_a_file_that_is_open_while_all_is_evicted(served: Server, disk: Path, tmp_path: Path) -> None:
    with lazy(served.url, tmp_path) as mounted, (mounted.latest / "file 3").open("rb", buffering=0) as file:
        half = len(FILES["file 3"]) // 2
        assert file.read(half) == FILES["file 3"][:half]
        with shardfs.open(tmp_path / "clone") as repo:
            repo.evict()
        assert kept(disk) == []
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        assert file.read() == FILES["file 3"]


def test_two_daemons_on_one_cache_that_is_too_small(
    served: Server, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", "2MiB")
    with lazy(served.url, tmp_path / "one") as one, lazy(served.url, tmp_path / "two") as two:
        wrong: list[str] = []

        def work(mounted: Mounted, seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(30):
                name = chance.choice(list(FILES))
                if read(mounted.latest / name) != FILES[name]:
                    wrong.append(name)

        threads = [threading.Thread(target=work, args=(m, s)) for s, m in enumerate((one, two, one, two))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert one.errors() + two.errors() == ""
    assert sum(path.stat().st_size for path in kept(disk)) <= 2 * MIB
