"""Names in the staging area: a mutable tree over a base."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.errors import AreaError, LockedError, StoreError
from shardfs.staging.area import RENAME_NOREPLACE, Area
from shardfs.staging.nodes import ROOT, NodeKind, derived_ino
from tests.areas import Flat, MemoryStore, read, rows, shown, write

BASE: Flat = {
    (b"a",): b"alpha",
    (b"run",): (b"#!", True),
    (b"link",): "a",
    (b"empty",): None,
    (b"dir", b"b"): b"beta",
    (b"dir", b"deep", b"c"): b"gamma",
    (b"not utf-8 \xff",): b"",
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def area(tmp_path: Path, store: MemoryStore) -> Iterator[Area]:
    with store.area(tmp_path / "area", store.put(BASE)) as area:
        yield area


def refused(code: int, action: Callable[..., object], *args: object) -> None:
    with pytest.raises(AreaError) as caught:
        action(*args)
    assert caught.value.errno == code


def test_a_new_area_shows_its_base_and_stores_nothing(area: Area) -> None:
    assert shown(area) == BASE
    assert rows(area) == 0
    assert list(area.changes()) == []


def test_attributes_of_base_entries(area: Area) -> None:
    run, link, folder = (area.lookup(ROOT, name) for name in (b"run", b"link", b"dir"))
    assert run.mode == stat.S_IFREG | 0o755
    assert run.size == 2
    assert run.mtime_ns == 1_000_000_000
    assert link.mode == stat.S_IFLNK | 0o777
    assert area.readlink(link.ino) == b"a"
    assert folder.mode == stat.S_IFDIR | 0o755
    assert area.stat(folder.ino) == folder
    assert area.find((b"dir", b"deep", b"c")).size == 5
    assert area.stat(ROOT).kind is NodeKind.DIR


def test_missing_names(area: Area) -> None:
    refused(errno.ENOENT, area.lookup, ROOT, b"nothing")
    refused(errno.ENOTDIR, area.lookup, area.lookup(ROOT, b"a").ino, b"x")
    refused(errno.ENOTDIR, area.list, area.lookup(ROOT, b"a").ino)
    refused(errno.ENOENT, area.stat, 12345)
    refused(errno.ENAMETOOLONG, area.lookup, ROOT, b"n" * 256)
    refused(errno.EINVAL, area.readlink, ROOT)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"", errno.EINVAL),
        (b".", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"x/y", errno.EINVAL),
        (b"x\0", errno.EINVAL),
        (b".shardfs", errno.EPERM),
        (b"n" * 256, errno.ENAMETOOLONG),
    ],
)
def test_bad_names_are_refused(area: Area, name: bytes, code: int) -> None:
    refused(code, area.mkdir, ROOT, name, 0o755)
    refused(code, area.symlink, ROOT, name, b"a")
    refused(code, area.create, ROOT, name, 0o644)
    refused(code, area.rename, ROOT, b"a", ROOT, name)
    assert shown(area) == BASE


def test_the_longest_name_and_bytes_that_are_no_text(area: Area) -> None:
    for name in (b"n" * 255, b"\x80\xff", b"new\nline", "ä".encode()):
        write(area, name, name)
        assert read(area, area.lookup(ROOT, name).ino) == name


def test_make_everything(area: Area) -> None:
    folder = area.mkdir(ROOT, b"new", 0o700)
    area.symlink(folder.ino, b"up", b"../a")
    area.mknod(folder.ino, b"nothing", 0o600)
    write(area, b"tool", b"x", folder.ino, 0o755)
    assert shown(area) == BASE | {
        (b"new", b"up"): "../a",
        (b"new", b"nothing"): b"",
        (b"new", b"tool"): (b"x", True),
    }
    assert area.stat(folder.ino).mode == stat.S_IFDIR | 0o700
    refused(errno.EEXIST, area.mkdir, ROOT, b"a", 0o755)
    refused(errno.EEXIST, area.symlink, ROOT, b"dir", b"x")
    refused(errno.EEXIST, area.mknod, folder.ino, b"up", 0o644)
    refused(errno.EEXIST, area.create, ROOT, b"a", 0o644, os.O_RDWR | os.O_EXCL)
    refused(errno.ENOTDIR, area.mkdir, area.lookup(ROOT, b"a").ino, b"x", 0o755)
    refused(errno.ENOENT, area.mkdir, 999, b"x", 0o755)
    refused(errno.ENOENT, area.symlink, ROOT, b"x", b"")
    refused(errno.ENAMETOOLONG, area.symlink, ROOT, b"x", b"t" * 4096)


def test_remove_base_entries(area: Area) -> None:
    area.unlink(ROOT, b"a")
    area.unlink(ROOT, b"link")
    area.rmdir(ROOT, b"empty")
    expected = {path: value for path, value in BASE.items() if path not in {(b"a",), (b"link",), (b"empty",)}}
    assert shown(area) == expected
    refused(errno.ENOENT, area.unlink, ROOT, b"a")
    refused(errno.EISDIR, area.unlink, ROOT, b"dir")
    refused(errno.ENOTDIR, area.rmdir, ROOT, b"run")
    refused(errno.ENOTEMPTY, area.rmdir, ROOT, b"dir")
    assert rows(area) == 3


def test_a_directory_of_the_base_can_be_emptied_and_removed(area: Area) -> None:
    folder = area.lookup(ROOT, b"dir").ino
    deep = area.lookup(folder, b"deep").ino
    area.unlink(deep, b"c")
    area.rmdir(folder, b"deep")
    area.unlink(folder, b"b")
    area.rmdir(ROOT, b"dir")
    assert (b"dir",) not in {path[:1] for path in shown(area)}
    assert rows(area) == 1, "one whiteout is all that is left to say"


def test_a_removed_name_can_be_made_again_without_its_past(area: Area) -> None:
    area.rename(ROOT, b"dir", ROOT, b"moved")
    area.mkdir(ROOT, b"dir", 0o755)
    assert area.list(area.lookup(ROOT, b"dir").ino) == []
    area.rmdir(ROOT, b"dir")
    refused(errno.ENOENT, area.lookup, ROOT, b"dir")


def test_rename_of_a_base_directory_is_two_rows_and_keeps_inode_numbers(area: Area) -> None:
    folder = area.lookup(ROOT, b"dir")
    inside = area.lookup(folder.ino, b"b")
    area.rename(ROOT, b"dir", ROOT, b"moved")
    assert rows(area) == 2
    assert area.lookup(ROOT, b"moved").ino == folder.ino
    assert area.lookup(folder.ino, b"b").ino == inside.ino
    assert area.find((b"moved", b"deep", b"c")).size == 5
    refused(errno.ENOENT, area.lookup, ROOT, b"dir")
    area.rename(ROOT, b"moved", ROOT, b"dir")
    assert list(area.changes()) == [], "moved back: nothing differs"
    assert shown(area) == BASE


def test_rename_over_files_and_directories(area: Area) -> None:
    area.rename(ROOT, b"run", ROOT, b"a")
    assert shown(area)[b"a",] == (b"#!", True)
    area.rename(ROOT, b"dir", ROOT, b"empty")
    assert shown(area)[b"empty", b"b"] == b"beta"
    refused(errno.ENOTDIR, area.rename, ROOT, b"empty", ROOT, b"a")
    refused(errno.EISDIR, area.rename, ROOT, b"a", ROOT, b"empty")
    area.mkdir(ROOT, b"full", 0o755)
    write(area, b"x", b"x", area.lookup(ROOT, b"full").ino)
    refused(errno.ENOTEMPTY, area.rename, ROOT, b"empty", ROOT, b"full")
    refused(errno.EEXIST, area.rename, ROOT, b"a", ROOT, b"full", RENAME_NOREPLACE)
    refused(errno.EINVAL, area.rename, ROOT, b"a", ROOT, b"b", 2)
    refused(errno.ENOENT, area.rename, ROOT, b"nothing", ROOT, b"b")
    area.rename(ROOT, b"a", ROOT, b"a")
    area.rename(ROOT, b"a", ROOT, b"b", RENAME_NOREPLACE)
    assert shown(area)[b"b",] == (b"#!", True)


def test_a_directory_cannot_move_below_itself(area: Area) -> None:
    folder = area.lookup(ROOT, b"dir").ino
    deep = area.lookup(folder, b"deep").ino
    refused(errno.EINVAL, area.rename, ROOT, b"dir", deep, b"x")
    refused(errno.EINVAL, area.rename, ROOT, b"dir", folder, b"x")
    assert shown(area) == BASE


def test_inode_numbers_are_the_same_everywhere_and_survive_the_first_change(
    area: Area, tmp_path: Path, store: MemoryStore
) -> None:
    ino = area.lookup(ROOT, b"a").ino
    assert ino == derived_ino(ROOT, b"a") > 1 << 32
    area.chmod(ino, 0o755)
    write(area, b"a", b"new content")
    assert area.lookup(ROOT, b"a").ino == ino
    assert {node.name: node.ino for node in area.list(ROOT)}[b"a"] == ino
    with store.area(tmp_path / "area", session=False) as other:
        assert other.lookup(ROOT, b"a").ino == ino
        assert other.lookup(ROOT, b"run").ino == area.lookup(ROOT, b"run").ino


def test_a_number_never_stands_for_two_nodes(area: Area, store: MemoryStore) -> None:
    ino = area.lookup(ROOT, b"a").ino
    area.rename(ROOT, b"a", ROOT, b"moved")
    store.commit(area)
    area.rebase(store.put(BASE | {(b"moved",): b"alpha"}), 0)
    area.set_xattr(area.lookup(ROOT, b"moved").ino, b"user.x", b"1")
    inos = [node.ino for node in area.list(ROOT)]
    assert len(inos) == len(set(inos))
    assert area.stat(area.lookup(ROOT, b"a").ino).name == b"a"
    assert ino in inos


def test_a_number_dies_with_its_node(area: Area) -> None:
    ino = area.lookup(ROOT, b"a").ino
    area.unlink(ROOT, b"a")
    write(area, b"a", b"another")
    refused(errno.ENOENT, area.stat, ino)
    assert area.lookup(ROOT, b"a").ino != ino


def test_times_of_directories_follow_their_content(area: Area) -> None:
    folder = area.lookup(ROOT, b"dir")
    assert folder.mtime_ns == 1_000_000_000
    for change in (
        lambda: write(area, b"n", b"", folder.ino),
        lambda: area.rename(folder.ino, b"n", ROOT, b"n"),
        lambda: area.rename(ROOT, b"n", folder.ino, b"n"),
        lambda: area.unlink(folder.ino, b"n"),
        lambda: area.mkdir(folder.ino, b"d", 0o755),
        lambda: area.rmdir(folder.ino, b"d"),
    ):
        area.utimens(folder.ino, 5)
        assert area.stat(folder.ino).mtime_ns == 5
        change()
        assert area.stat(folder.ino).mtime_ns > 1_000_000_000


def test_modes_and_times_are_kept_but_only_the_executable_bit_is_a_change(area: Area) -> None:
    ino = area.lookup(ROOT, b"a").ino
    area.chmod(ino, 0o600)
    area.utimens(ino, 42)
    found = area.lookup(ROOT, b"a")
    assert (found.mode, found.mtime_ns) == (stat.S_IFREG | 0o600, 42)
    assert list(area.changes()) == []
    area.chmod(ino, 0o700)
    assert [change.kind.value for change in area.changes()] == ["modified"]
    area.chmod(ino, 0o644)
    assert list(area.changes()) == []


def test_extended_attributes(area: Area) -> None:
    ino = area.lookup(ROOT, b"a").ino
    area.set_xattr(ino, b"user.b", b"1")
    area.set_xattr(ino, b"user.a", b"\0\xff")
    assert area.list_xattrs(ino) == [b"user.a", b"user.b"]
    assert area.get_xattr(ino, b"user.a") == b"\0\xff"
    refused(errno.EEXIST, area.set_xattr, ino, b"user.a", b"", 1)
    refused(errno.ENODATA, area.set_xattr, ino, b"user.c", b"", 2)
    refused(errno.E2BIG, area.set_xattr, ino, b"user.c", bytes(70_000))
    area.remove_xattr(ino, b"user.a")
    refused(errno.ENODATA, area.get_xattr, ino, b"user.a")
    refused(errno.ENODATA, area.remove_xattr, ino, b"user.a")
    area.unlink(ROOT, b"a")
    refused(errno.ENOENT, area.get_xattr, ino, b"user.b")


def test_one_session_at_a_time(area: Area, tmp_path: Path, store: MemoryStore) -> None:
    with store.area(tmp_path / "area", session=False) as other:
        with pytest.raises(LockedError, match="a test"):
            other.start_session("another", wait_s=0)
        refused(errno.EROFS, other.create, ROOT, b"x", 0o644)
        refused(errno.EROFS, other.open_file, other.lookup(ROOT, b"a").ino, os.O_WRONLY)
        other.mkdir(ROOT, b"from the side", 0o755)
        assert area.lookup(ROOT, b"from the side").is_dir
        area.close()
        other.start_session("another", wait_s=0)
        write(other, b"x", b"x")


def test_a_damaged_database_is_one_error(tmp_path: Path, store: MemoryStore) -> None:
    store.area(tmp_path / "area").close()
    for path in (tmp_path / "area").glob("area.sqlite*"):
        path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreError, match=r"area\.sqlite"):
        store.area(tmp_path / "area")


def test_one_change_in_a_large_directory_is_one_row(tmp_path: Path, store: MemoryStore) -> None:
    base = store.put({(b"big", b"%06d" % i): b"" for i in range(100_000)})
    with store.area(tmp_path / "area", base) as area:
        folder = area.lookup(ROOT, b"big").ino
        assert len(area.list(folder)) == 100_000
        write(area, b"000007", b"changed", folder)
        area.unlink(folder, b"000008")
        assert len(area.list(folder)) == 99_999
        assert rows(area) == 3
        assert [change.path[-1] for change in area.changes()] == [b"000007", b"000008"]
