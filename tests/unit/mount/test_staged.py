"""`staging/` through the vfs. What areas do is tested with them; here is what the mount adds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource, code, content, names, write


def test_staging_starts_as_the_tip(vfs: Vfs) -> None:
    assert sorted(names(vfs, b"staging")) == [b"a.txt", b"e", b"empty"]
    assert content(vfs, b"staging/a.txt") == b"two\n"
    attr = vfs.getattr(vfs.resolve(b"staging/a.txt"))
    assert (stat.S_IMODE(attr.mode), attr.nlink, attr.size) == (0o644, 1, 4)


def test_changes_are_seen_and_committed_content_is_not_touched(source: MemorySource, vfs: Vfs) -> None:
    staging = vfs.resolve(b"staging")
    write(vfs, b"new", b"data")
    vfs.mkdir(staging, b"d", 0o755)
    vfs.rename(staging, b"new", vfs.resolve(b"staging/d"), b"moved")
    vfs.symlink(staging, b"l", b"d/moved")
    vfs.chmod(vfs.resolve(b"staging/d/moved"), 0o755)
    vfs.utimens(vfs.resolve(b"staging/d/moved"), 12_345)
    vfs.truncate(vfs.resolve(b"staging/d/moved"), 2)
    vfs.unlink(staging, b"a.txt")
    vfs.rmdir(staging, b"e")
    vfs.fsync_dir(staging)
    assert sorted(names(vfs, b"staging")) == [b"d", b"empty", b"l"]
    assert content(vfs, b"staging/d/moved") == b"da"
    assert vfs.readlink(vfs.resolve(b"staging/l")) == b"d/moved"
    assert content(vfs, b"commits/" + source.refs["main"].hex().encode() + b"/a.txt") == b"two\n"


def test_a_handle_outlives_its_name(vfs: Vfs) -> None:
    staging = vfs.resolve(b"staging")
    handle = vfs.create(staging, b"temp", 0o600, os.O_RDWR)
    vfs.write(handle, 0, b"12345")
    vfs.unlink(staging, b"temp")
    vfs.ftruncate(handle, 3)
    vfs.futimens(handle, 7)
    assert vfs.read(handle, 0, 10) == b"123"
    assert vfs.fgetattr(handle).size == 3
    vfs.fsync(handle)
    vfs.release(handle)
    assert b"temp" not in names(vfs, b"staging")


def test_devices_are_refused(vfs: Vfs) -> None:
    staging = vfs.resolve(b"staging")
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK):
        assert code(lambda k=kind: vfs.mknod(staging, b"x", k | 0o644)) == errno.EPERM  # type: ignore[misc]
    vfs.mknod(staging, b"x", stat.S_IFREG | 0o644)
    assert content(vfs, b"staging/x") == b""


def test_extended_attributes_of_users_and_magic_ones(vfs: Vfs) -> None:
    file = vfs.resolve(b"staging/a.txt")
    vfs.set_xattr(file, b"user.note", b"value")
    assert vfs.list_xattrs(file) == [b"user.note"]
    assert vfs.get_xattr(file, b"user.note") == b"value"
    assert vfs.get_xattr(file, b"user.shardfs.chunks") == b"1"
    assert code(lambda: vfs.set_xattr(file, b"user.shardfs.chunks", b"9")) == errno.EPERM
    assert code(lambda: vfs.set_xattr(file, b"security.x", b"9")) == errno.EOPNOTSUPP
    vfs.remove_xattr(file, b"user.note")
    assert vfs.list_xattrs(file) == []


def test_staging_follows_a_tip_that_another_process_moves(source: MemorySource, vfs: Vfs) -> None:
    write(vfs, b"mine", b"data")
    source.put({(b"a.txt",): b"three\n"}, "from elsewhere")
    vfs.expire()
    assert sorted(names(vfs, b"staging")) == [b"a.txt", b"mine"]
    assert content(vfs, b"staging/a.txt") == b"three\n"


def test_a_write_that_fails_is_named_without_what_was_written(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_offset: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    handle = vfs.create(vfs.resolve(b"staging"), b"new", 0o644, os.O_WRONLY)
    monkeypatch.setattr(handle, "write", full)
    assert code(lambda: vfs.write(handle, 4096, b"weights")) == errno.ENOSPC
    assert vfs.causes.text().endswith(b" 4096 7: ENOSPC: [Errno 28] No space left on device\n")
    vfs.release(handle)


@pytest.fixture
def second(source: MemorySource) -> Iterator[Vfs]:
    """Another mount of the same repository, as another process has it."""
    other = MemorySource(source.store_path)
    other.store, other.objects, other.refs = source.store, source.objects, source.refs
    yield Vfs(other, who="the second mount")
    other.close()


def test_two_mounts_read_one_area_and_one_of_them_writes(vfs: Vfs, second: Vfs, tmp_path: Path) -> None:
    write(vfs, b"new", b"data")
    assert content(second, b"staging/new") == b"data"
    assert code(lambda: write(second, b"other", b"data")) == errno.EBUSY
    assert b"a test" in second.causes.text()
    assert code(lambda: second.open(second.resolve(b"staging/new"), os.O_RDWR)) == errno.EBUSY
    assert b" open staging:new " in second.causes.text()
    second.unlink(second.resolve(b"staging"), b"a.txt")  # names need no handle
    assert b"a.txt" not in names(vfs, b"staging")
