"""Through the kernel: what stat, readdir, read, and writing to staging do on a real mount."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import (
    FRESH_S,
    Mounted,
    Variant,
    add_commit,
    eventually,
    make_project,
    mounting,
    private_folders,
    shell,
)
from tests.stores import changed, noise

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("variant")]

RAW_NAME = b"caf\xe9-\xff"  # not UTF-8
LONG_NAME = "n" * 255
BIG = bytes(range(256)) * 8192  # 2 MiB
FILES = {
    "a.txt": b"hello\n",
    "big.bin": BIG,
    "empty": b"",
    f"names/{LONG_NAME}": b"long",
    "names/" + os.fsdecode(RAW_NAME): b"raw",
    "names/new\nline": b"newline",
    "run.sh": b"#!/bin/sh\necho ran\n",
}


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, home: Path, variant: Variant) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp(f"posix-{variant.name}")
    project = folder / "project"
    with private_folders(home):
        project.mkdir()
        for name, data in FILES.items():
            path = project / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        (project / "run.sh").chmod(0o755)
        (project / "link").symlink_to("names/../a.txt")
        with shardfs.init(project) as repo:
            repo.add([project / name for name in ("a.txt", "big.bin", "empty", "names", "run.sh", "link")])
            repo.commit("initial")
    with mounting(project, folder / "models", home, **variant.options) as found:
        if variant.plain:
            found.make_plain(found.latest / "big.bin")
        yield found


# Below a commit


def test_the_kernel_reads_plain_files_itself_where_it_may(mounted: Mounted, variant: Variant) -> None:
    before = mounted.stats().get("engine", {"passed_through": 0})["passed_through"]
    assert (mounted.latest / "big.bin").read_bytes() == BIG
    after = mounted.stats().get("engine", {"passed_through": 0})["passed_through"]
    assert after - before == variant.passes_through


def test_every_name_and_byte_is_there(mounted: Mounted) -> None:
    found = {
        os.fsencode(path.relative_to(mounted.latest)): path.read_bytes()
        for path in mounted.latest.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert found == {os.fsencode(name): data for name, data in FILES.items()}
    assert (mounted.latest / "link").readlink() == Path("names/../a.txt")
    assert (mounted.latest / "link").read_bytes() == b"hello\n"


def test_attributes_are_those_of_a_read_only_disk(mounted: Mounted) -> None:
    big = (mounted.latest / "big.bin").stat()
    assert stat.S_IMODE(big.st_mode) == 0o444
    assert (big.st_nlink, big.st_size, big.st_blocks) == (1, len(BIG), len(BIG) // 512)
    assert (big.st_uid, big.st_gid) == (os.getuid(), os.getgid())
    assert stat.S_IMODE((mounted.latest / "run.sh").stat().st_mode) == 0o555
    assert (mounted.latest / "empty").stat().st_blocks == 0
    assert mounted.latest.stat().st_nlink == 3  # itself, ".", and "names/.."
    assert subprocess.check_output([mounted.latest / "run.sh"]) == b"ran\n"


def test_mtime_is_the_time_of_the_commit(mounted: Mounted) -> None:
    with shardfs.open(mounted.project) as repo:
        _, commit = repo.commit_of("HEAD")
    assert (mounted.latest / "big.bin").stat().st_mtime_ns == commit.time_us * 1000
    assert mounted.point.joinpath("latest").lstat().st_mtime_ns == commit.time_us * 1000


def test_directory_entries_have_the_inode_numbers_of_stat(mounted: Mounted) -> None:
    for folder in (mounted.point, mounted.latest, mounted.latest / "names", mounted.staging, mounted.point / "commits"):
        with os.scandir(folder) as entries:
            listed = {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries}
        assert listed
        for name, (inode, is_dir) in listed.items():
            found = os.lstat(folder / name)
            assert (found.st_ino, stat.S_ISDIR(found.st_mode)) == (inode, is_dir)


def test_the_kernel_refuses_changes_below_a_commit(mounted: Mounted) -> None:
    file = mounted.latest / "a.txt"
    changes = (
        lambda: file.open("r+b"),
        lambda: (mounted.latest / "new").touch(),
        lambda: (mounted.latest / "new").mkdir(),
        lambda: file.unlink(),
        lambda: file.rename(mounted.latest / "b.txt"),
        lambda: os.truncate(file, 0),
        lambda: os.utime(file),
        lambda: file.chmod(0o777),
        lambda: os.setxattr(file, "user.x", b"1"),
        lambda: (mounted.point / "versions" / "new").symlink_to("x"),
    )
    for change in changes:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is what is tested
            change()
        # default_permissions: the kernel looks at the mode first, unless root asks
        assert caught.value.errno in (errno.EROFS, errno.EACCES)
    assert file.read_bytes() == b"hello\n"


def test_magic_attributes_tell_how_a_file_is_stored(mounted: Mounted) -> None:
    file = mounted.latest / "big.bin"
    found = {name: os.getxattr(file, f"user.shardfs.{name}").decode() for name in ("commit", "chunks", "cached")}
    assert mounted.point.joinpath("latest").readlink().name == found["commit"]
    assert int(found["cached"]) == len(BIG)
    assert int(found["chunks"]) >= 1
    assert float(os.getxattr(file, "user.shardfs.ratio")) > 1.0  # a pattern compresses
    assert os.getxattr(file, "user.shardfs.codec") == b"zstd"
    assert os.listxattr(file) == []
    with pytest.raises(OSError, match="No data"):
        os.getxattr(file, "user.shardfs.nothing")


def test_attributes_follow_differences_to_older_versions(tmp_path: Path, home: Path) -> None:
    data = noise(1, 300_000)
    with private_folders(home):
        make_project(tmp_path / "project", {"model.bin": data}, "one")
        with shardfs.open(tmp_path / "project") as repo:
            add_commit(repo, {"model.bin": changed(data, 1)}, "two")
            add_commit(repo, {"model.bin": changed(data, 2)}, "three")
    names = ("codec", "depth", "stored", "ratio", "cached", "chunks")
    with mounting(tmp_path / "project", tmp_path / "models", home) as mounted:
        files = [mounted.point / "versions" / name / "model.bin" for name in ("0001-one", "0002-two", "0003-three")]
        found = [[os.getxattr(file, f"user.shardfs.{name}").decode() for name in names] for file in files]
    assert found[0] == ["raw", "0", "300000", "1.000", "300000", "1"]
    for depth, (codec, told, stored, ratio, cached, chunks) in enumerate(found[1:], 1):
        assert (codec, told, cached, chunks) == ("patch", str(depth), "300000", "1")
        assert int(stored) < 1000
        assert ratio == f"{300_000 / int(stored):.3f}"


def test_short_ids_and_wrong_ids(mounted: Mounted) -> None:
    full = mounted.point.joinpath("latest").readlink().name
    assert (mounted.point / "commits" / full[:10] / "a.txt").read_bytes() == b"hello\n"
    assert not (mounted.point / "commits" / ("0" * 64)).exists()
    assert ".shardfs" not in os.listdir(mounted.point)


def test_a_second_open_reads_nothing_again(mounted: Mounted) -> None:
    def reads() -> int:
        text = (mounted.point / ".shardfs" / "stats.json").read_text()
        return int(text.partition('"memory_hits":')[2].partition(",")[0])

    file = mounted.latest / "big.bin"
    assert file.read_bytes() == BIG
    before = reads()
    for _ in range(3):
        assert file.read_bytes() == BIG
    assert reads() == before


def test_random_access_through_the_page_cache(mounted: Mounted) -> None:
    with (mounted.latest / "big.bin").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        for offset in (0, 4095, 4096, 1 << 20, len(BIG) - 10, 777_777):
            assert view[offset : offset + 10] == BIG[offset : offset + 10]
        assert os.pread(file.fileno(), 10, len(BIG)) == b""
        assert os.lseek(file.fileno(), 0, os.SEEK_END) == len(BIG)


def test_df_and_the_mount_options(mounted: Mounted) -> None:
    disk, found = os.statvfs(mounted.project), os.statvfs(mounted.point)
    assert found.f_blocks * found.f_frsize == disk.f_blocks * disk.f_frsize
    assert found.f_namemax == 255
    [row] = [line for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == str(mounted.point)]
    source, _, kind, options = row.split()[:4]
    assert kind == "fuse.shardfs"
    assert source == str(mounted.project)
    assert {"nosuid", "nodev", "default_permissions"} <= set(options.split(","))


# Staging


@pytest.fixture
def folder(mounted: Mounted, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory in staging."""
    path = mounted.staging / request.node.name[:60]
    path.mkdir()
    yield path
    shutil.rmtree(path)


def test_files_are_made_written_cut_and_appended(folder: Path) -> None:
    file = folder / "file"
    file.write_bytes(b"0123456789")
    with file.open("r+b", buffering=0) as out:
        out.seek(5)
        out.write(b"xx")
        out.truncate(8)
    with file.open("ab", buffering=0) as out:
        out.write(b"end")
        out.write(b"!")
        os.fsync(out.fileno())
    assert file.read_bytes() == b"01234xx7end!"
    assert file.stat().st_size == 12
    os.truncate(file, 3)
    os.truncate(file, 6)
    assert file.read_bytes() == b"012\0\0\0"
    file.write_bytes(b"short")
    assert file.read_bytes() == b"short"


def test_two_appenders_interleave_and_lose_nothing(folder: Path) -> None:
    with (folder / "log").open("ab", buffering=0) as one, (folder / "log").open("ab", buffering=0) as two:
        for number in range(20):
            (one if number % 2 else two).write(b"%02d\n" % number)
    assert sorted((folder / "log").read_bytes().split()) == [b"%02d" % n for n in range(20)]


def test_a_shared_mapping_writes(folder: Path) -> None:
    file = folder / "mapped"
    file.write_bytes(bytes(3 * 4096))
    with file.open("r+b") as out, mmap.mmap(out.fileno(), 0) as view:
        view[4090:4100] = b"0123456789"
        view.flush()
    assert file.read_bytes()[4090:4100] == b"0123456789"


def test_a_file_without_a_name_still_works(folder: Path) -> None:
    with (folder / "temp").open("w+b", buffering=0) as file:
        file.write(b"12345")
        (folder / "temp").unlink()
        assert list(folder.iterdir()) == []
        os.ftruncate(file.fileno(), 3)
        file.seek(0, os.SEEK_END)
        file.write(b"67")
        assert os.pread(file.fileno(), 10, 0) == b"12367"
        os.fsync(file.fileno())


def test_renames(folder: Path) -> None:
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    with (folder / "b").open("rb") as old:
        (folder / "a").replace(folder / "b")
        assert old.read() == b"b"
    assert (folder / "b").read_bytes() == b"a"
    (folder / "d").mkdir()
    (folder / "d" / "x").write_bytes(b"x")
    (folder / "d").rename(folder / "e")
    assert (folder / "e" / "x").read_bytes() == b"x"
    with pytest.raises(OSError, match="not empty"):
        (folder / "e").rmdir()
    with pytest.raises(NotADirectoryError):
        (folder / "e").rename(folder / "b")


def test_rename_without_replacing(folder: Path) -> None:
    (folder / "a").touch()
    (folder / "b").touch()
    libc = ctypes.CDLL(None, use_errno=True)
    at, noreplace = -100, 1
    wanted = (at, os.fsencode(folder / "a"), at, os.fsencode(folder / "b"), noreplace)
    assert libc.renameat2(*wanted) == -1
    assert ctypes.get_errno() == errno.EEXIST


def test_modes_times_links_and_attributes(folder: Path) -> None:
    file = folder / "file"
    file.touch(mode=0o640)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    file.chmod(0o755)
    os.utime(file, ns=(1, 1_234_567_890_123_456_789))
    assert file.stat().st_mtime_ns == 1_234_567_890_123_456_789
    before = time.time() - 5
    os.utime(file)
    assert file.stat().st_mtime > before
    os.chown(file, os.getuid(), os.getgid())
    (folder / "link").symlink_to("../elsewhere")
    assert (folder / "link").readlink() == Path("../elsewhere")
    with pytest.raises(PermissionError):
        (folder / "hard").hardlink_to(file)
    os.setxattr(file, "user.note", b"value")
    assert os.listxattr(file) == ["user.note"]
    with pytest.raises(PermissionError):
        os.mkfifo(folder / "pipe")


def test_space_can_be_reserved(folder: Path) -> None:
    with (folder / "file").open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, 10_000)
    assert (folder / "file").stat().st_size == 10_000


def test_names_up_to_the_limit_and_of_any_bytes(folder: Path) -> None:
    raw = os.fsencode(folder) + b"/" + RAW_NAME
    for name in (os.fsencode(folder) + b"/" + b"n" * 255, raw):
        with open(name, "wb") as out:  # noqa: PTH123 - a name that is bytes
            out.write(b"x")
    assert RAW_NAME in os.listdir(os.fsencode(folder))
    with pytest.raises(OSError, match="too long"):
        (folder / ("n" * 256)).touch()


def test_advisory_locks_work_within_the_machine(folder: Path) -> None:
    with (folder / "lock").open("w") as one, (folder / "lock").open("w") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_writes(folder: Path, mode: str) -> None:
    with closing(sqlite3.connect(folder / "db.sqlite")) as db:
        db.execute(f"PRAGMA journal_mode={mode}")
        db.execute("CREATE TABLE t (x)")
        for number in range(20):
            with db:
                db.execute("INSERT INTO t VALUES (?)", (number,))
    with closing(sqlite3.connect(folder / "db.sqlite")) as db:
        assert db.execute("SELECT sum(x) FROM t").fetchone() == (190,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_git_works_in_staging(folder: Path) -> None:
    shell(
        "git init -q . && echo one > a && git add a && git commit -qm one && echo two >> a && git commit -qam two"
        " && git fsck --strict && git gc -q && git status --porcelain && git checkout -q HEAD~1",
        folder,
    )
    assert (folder / "a").read_text() == "one\n"


def test_rsync_into_staging(folder: Path, mounted: Mounted) -> None:
    source = mounted.project
    shell(f"rsync -a {source}/names {source}/a.txt {folder}/", folder)
    for _ in range(2):
        shell(f"rsync -a --inplace --ignore-times {source}/big.bin {folder}/", folder)
    assert (folder / "big.bin").read_bytes() == BIG
    shell(f"diff -r {source}/names {folder}/names", folder)


# Commits


def test_a_commit_through_the_mount(mounted: Mounted) -> None:
    (mounted.staging / "made").mkdir()
    (mounted.staging / "made" / "file").write_bytes(BIG[::-1])
    (mounted.staging / "made" / "program").write_bytes(b"x")
    (mounted.staging / "made" / "program").chmod(0o755)
    commit = mounted.commit("through the mount")
    assert mounted.point.joinpath("latest").readlink().name == commit
    assert (mounted.latest / "made" / "file").read_bytes() == BIG[::-1]
    assert stat.S_IMODE((mounted.latest / "made" / "program").stat().st_mode) == 0o555
    assert any(name.endswith("through-the-mount") for name in os.listdir(mounted.point / "versions"))
    assert (mounted.staging / "made" / "file").read_bytes() == BIG[::-1]


def test_a_refused_commit_is_an_error_of_close(mounted: Mounted) -> None:
    with suppress(OSError):
        mounted.commit("first take everything")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        mounted.commit("nothing is left to commit")
    assert caught.value.errno == errno.ENODATA
    assert "error:" in (mounted.point / ".shardfs" / "commit").read_text()


def test_a_commit_of_another_process_is_seen_within_a_second(mounted: Mounted, home: Path) -> None:
    assert "elsewhere" not in os.listdir(mounted.latest)
    before = os.listdir(mounted.point / "versions")
    with private_folders(home), shardfs.open(mounted.project) as repo:
        commit = add_commit(repo, {"elsewhere": b"from the command line"}, "from elsewhere")
    done = time.monotonic()
    assert eventually(lambda: mounted.point.joinpath("latest").readlink().name == commit, FRESH_S)
    assert eventually(lambda: len(os.listdir(mounted.point / "versions")) == len(before) + 1, FRESH_S)
    assert eventually(lambda: (mounted.staging / "elsewhere").exists(), FRESH_S)
    assert time.monotonic() - done < FRESH_S
    assert (mounted.latest / "elsewhere").read_bytes() == b"from the command line"


def test_an_open_file_keeps_its_version_while_the_branch_moves(mounted: Mounted) -> None:
    with (mounted.latest / "a.txt").open("rb", buffering=0) as old:
        (mounted.staging / "a.txt").write_bytes(b"changed\n")
        mounted.commit("change a.txt")
        assert old.read() == b"hello\n"
    assert (mounted.latest / "a.txt").read_bytes() == b"changed\n"


def test_the_repository_is_found_from_within_the_mount(mounted: Mounted) -> None:
    with shardfs.open(mounted.staging) as repo:
        assert repo.store_path == mounted.project / ".shardfs"


def test_nothing_failed_unexpectedly(mounted: Mounted) -> None:
    unexpected = [line for line in mounted.errors().splitlines() if "EIO" in line]
    assert unexpected == []


def test_a_made_mount_point_goes_with_its_mount(tmp_path: Path, home: Path) -> None:
    with private_folders(home):
        make_project(tmp_path / "project", {"a": b"a"})
    with mounting(tmp_path / "project", tmp_path / "models", home) as found:
        assert (found.latest / "a").read_bytes() == b"a"
    assert not (tmp_path / "models").exists()
