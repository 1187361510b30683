"""The layout of a mount and what is refused below commits."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shardfs.errors import ChunkNotFoundError
from shardfs.formats.ref import BRANCHES, Head
from shardfs.formats.tree import FileEntry
from shardfs.mount.nodes import Node
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource, code, commit_path, content, link, names, walk


def test_the_root_lists_everything_but_the_control_directory(vfs: Vfs) -> None:
    assert names(vfs, b"") == [b"latest", b"versions", b"branches", b"tags", b"commits", b"staging"]
    assert vfs.resolve(b".shardfs").is_dir


def test_names_are_links_to_commits(source: MemorySource, vfs: Vfs) -> None:
    source.refs["exp/lr/3"] = source.tag_refs["v1"] = first = source.versions()[0].commit
    source.touch()
    vfs.expire()
    tip = source.refs["main"]
    assert link(vfs, b"latest") == commit_path(tip)
    assert names(vfs, b"versions") == [b"0001-initial", b"0002-second"]
    assert link(vfs, b"versions/0001-initial") == b"../" + commit_path(first)
    assert sorted(names(vfs, b"branches")) == [b"exp", b"main"]
    assert names(vfs, b"branches/exp") == [b"lr"]
    assert link(vfs, b"branches/exp/lr/3") == b"../../../" + commit_path(first)
    assert link(vfs, b"tags/v1") == b"../" + commit_path(first)
    assert vfs.getattr(vfs.resolve(b"tags/v1")).size == len(link(vfs, b"tags/v1"))
    assert code(lambda: vfs.resolve(b"branches/ex")) == errno.ENOENT
    assert code(lambda: vfs.resolve(b"tags/v1/x")) == errno.ENOTDIR


def test_commits_are_found_by_unambiguous_prefixes(source: MemorySource, vfs: Vfs) -> None:
    tip = source.refs["main"]
    assert sorted(names(vfs, b"commits")) == sorted(i.hex().encode() for i in source.objects.commits)
    assert content(vfs, commit_path(tip) + b"/a.txt") == b"two\n"
    assert vfs.resolve(b"commits/" + tip.hex()[:6].encode()) == vfs.resolve(commit_path(tip))
    for wrong in (b"commits/" + b"0" * 64, b"commits/0000", b"commits/" + tip.hex()[:3].encode(), b"commits/README"):
        assert code(lambda path=wrong: vfs.resolve(path)) == errno.ENOENT  # type: ignore[misc]


def test_an_ambiguous_prefix_does_not_exist(source: MemorySource, vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "commits_with_prefix", lambda _digits: list(source.objects.commits))
    assert code(lambda: vfs.resolve(b"commits/abcd")) == errno.ENOENT


def test_a_reachable_commit_that_is_lost_is_an_error_not_absent(source: MemorySource, vfs: Vfs) -> None:
    lost = source.versions()[0].commit
    assert names(vfs, b"commits")
    del source.objects.commits[lost]
    assert code(lambda: vfs.resolve(commit_path(lost))) == errno.EIO
    assert lost.hex().encode() in vfs.causes.text()


def test_attributes_below_a_commit(source: MemorySource, vfs: Vfs) -> None:
    first, tip = (version.commit for version in source.versions())
    base = commit_path(first)
    file, program, folder = (vfs.getattr(vfs.resolve(base + p)) for p in (b"/a.txt", b"/d/run", b"/d"))
    assert (file.mode, file.nlink, file.size, file.blocks) == (stat.S_IFREG | 0o444, 1, 4, 1)
    assert program.mode == stat.S_IFREG | 0o555
    assert (folder.mode, folder.nlink) == (stat.S_IFDIR | 0o555, 2)
    assert vfs.getattr(vfs.resolve(base)).nlink == 3
    assert file.mtime_ns == source.objects.commits[first].time_us * 1000
    assert vfs.getattr(vfs.resolve(commit_path(tip) + b"/empty")).blocks == 0
    assert vfs.readlink(vfs.resolve(base + b"/d/link")) == b"../a.txt"


def test_the_same_content_has_one_inode_number_everywhere(source: MemorySource, vfs: Vfs) -> None:
    third = source.put({(b"copy",): b"one\n", (b"program",): (b"one\n", True), (b"d2", b"x"): b"one\n"}, "third")
    first = source.versions()[0].commit
    numbers = {
        vfs.resolve(path).ino
        for path in (commit_path(first) + b"/a.txt", commit_path(third) + b"/copy", commit_path(third) + b"/d2/x")
    }
    assert len(numbers) == 1
    assert vfs.resolve(commit_path(third) + b"/program").ino not in numbers


def test_every_node_of_a_mount_has_its_own_inode_number(vfs: Vfs) -> None:
    listed: dict[int, set[bytes]] = {}
    for path, node in walk(vfs, vfs.root):
        listed.setdefault(node.ino, set()).add(path.rpartition(b"/")[2])
    for path, node in walk(vfs, vfs.resolve(b".shardfs")):
        listed.setdefault(node.ino, set()).add(b".shardfs/" + path)
    shared = {number: paths for number, paths in listed.items() if len(paths) > 1}
    assert shared == {}
    assert all(0 < number < 1 << 63 for number in listed)


READ_ONLY = (
    ("create", lambda v, d, f: v.create(d, b"new", 0o644, os.O_RDWR)),
    ("mknod", lambda v, d, f: v.mknod(d, b"new", stat.S_IFREG | 0o644)),
    ("mkdir", lambda v, d, f: v.mkdir(d, b"new", 0o755)),
    ("symlink", lambda v, d, f: v.symlink(d, b"new", b"target")),
    ("unlink", lambda v, d, f: v.unlink(d, b"a.txt")),
    ("rmdir", lambda v, d, f: v.rmdir(d, b"d")),
    ("rename", lambda v, d, f: v.rename(d, b"a.txt", d, b"b.txt")),
    ("chmod", lambda v, d, f: v.chmod(f, 0o777)),
    ("utimens", lambda v, d, f: v.utimens(f, 0)),
    ("truncate", lambda v, d, f: v.truncate(f, 0)),
    ("open to write", lambda v, d, f: v.open(f, os.O_RDWR)),
    ("open to truncate", lambda v, d, f: v.open(f, os.O_RDONLY | os.O_TRUNC)),
    ("setxattr", lambda v, d, f: v.set_xattr(f, b"user.x", b"1")),
    ("removexattr", lambda v, d, f: v.remove_xattr(f, b"user.x")),
    ("chown", lambda v, d, f: v.require_writable(f)),
)


@pytest.mark.parametrize("change", [case[1] for case in READ_ONLY], ids=[case[0] for case in READ_ONLY])
def test_below_a_commit_every_change_is_erofs(
    source: MemorySource, vfs: Vfs, change: Callable[[Vfs, Node, Node], object]
) -> None:
    folder = vfs.resolve(commit_path(source.versions()[0].commit))
    file = vfs.lookup(folder, b"a.txt")
    assert code(lambda: change(vfs, folder, file)) == errno.EROFS


@pytest.mark.parametrize("path", [b"", b"versions", b"branches", b"tags", b"commits", b".shardfs"])
def test_the_fixed_directories_refuse_changes(vfs: Vfs, path: bytes) -> None:
    folder = vfs.resolve(path)
    assert code(lambda: vfs.mkdir(folder, b"new", 0o755)) == errno.EROFS
    assert code(lambda: vfs.create(folder, b"new", 0o644, os.O_WRONLY)) == errno.EROFS
    assert code(lambda: vfs.open(folder, os.O_RDONLY)) == errno.EISDIR


def test_moves_between_parts_are_refused_so_that_mv_copies(source: MemorySource, vfs: Vfs) -> None:
    staging, folder = vfs.resolve(b"staging"), vfs.resolve(commit_path(source.refs["main"]))
    assert code(lambda: vfs.rename(folder, b"a.txt", staging, b"b")) == errno.EXDEV
    assert code(lambda: vfs.rename(staging, b"a.txt", folder, b"b")) == errno.EXDEV


def test_long_names_are_refused_by_their_own_error(vfs: Vfs) -> None:
    assert code(lambda: vfs.parent_of(b"/staging/" + b"n" * 256)) == errno.ENAMETOOLONG
    assert vfs.parent_of(b"/staging/" + b"n" * 255)[1] == b"n" * 255


def test_an_open_file_keeps_its_version(source: MemorySource, vfs: Vfs) -> None:
    handle = vfs.open(vfs.resolve(link(vfs, b"latest") + b"/a.txt"), os.O_RDONLY)
    source.put({(b"a.txt",): b"three\n"}, "third")
    vfs.expire()
    assert content(vfs, link(vfs, b"latest") + b"/a.txt") == b"three\n"
    assert vfs.read(handle, 0, 100) == b"two\n"
    assert vfs.fgetattr(handle).size == 4


def test_unreadable_content_is_eio_with_its_cause(source: MemorySource, vfs: Vfs) -> None:
    class Broken:
        size = 4

        def read_at(self, _offset: int, _size: int, /) -> bytes:
            raise ChunkNotFoundError("no copy of chunk 1234")

        def pieces_at(self, offset: int, size: int, /) -> list[bytes]:
            return [self.read_at(offset, size)]

        def is_ready(self, _offset: int, _size: int, /) -> bool:
            return False

        def close(self) -> None:
            pass

    def open_broken(_entry: FileEntry, _path: bytes = b"") -> Broken:
        return Broken()

    source.open_entry = open_broken  # type: ignore[method-assign]
    path = commit_path(source.refs["main"]) + b"/a.txt"
    handle = vfs.open(vfs.resolve(path), os.O_RDONLY)
    assert code(lambda: vfs.read(handle, 0, 4)) == errno.EIO
    text = content(vfs, b".shardfs/errors").decode()
    assert "EIO: no copy of chunk 1234" in text
    assert f"{source.refs['main'].hex()[:12]}:a.txt 0 4" in text


def test_only_the_last_causes_are_kept(vfs: Vfs) -> None:
    for number in range(1000):
        vfs.causes.record("read", errno.EIO, ChunkNotFoundError(f"chunk {number}"))
    lines = vfs.causes.text().splitlines()
    assert len(lines) == 256
    assert lines[-1].endswith(b"chunk 999")


def test_magic_attributes_are_there_but_not_listed(source: MemorySource, vfs: Vfs) -> None:
    tip = source.refs["main"]
    file = vfs.resolve(commit_path(tip) + b"/a.txt")
    assert vfs.list_xattrs(file) == []
    names = (b"commit", b"chunks", b"cached", b"stored", b"depth")
    found = {n: vfs.get_xattr(file, b"user.shardfs." + n) for n in names}
    numbers = {b"chunks": b"1", b"cached": b"100", b"stored": b"50", b"depth": b"3"}
    assert found == {b"commit": tip.hex().encode()} | numbers
    assert vfs.get_xattr(file, b"user.shardfs.ratio") == b"0.080"
    assert vfs.get_xattr(file, b"user.shardfs.codec") == b"zstd,raw"
    assert len(vfs.get_xattr(file, b"user.shardfs.manifest")) == 64
    for name in (b"user.shardfs.nothing", b"user.other", b"commit"):
        assert code(lambda n=name: vfs.get_xattr(file, n)) == errno.ENODATA  # type: ignore[misc]


def test_without_commits_there_is_staging_and_no_latest(tmp_path: Path) -> None:
    source = MemorySource(tmp_path / "store")
    vfs = Vfs(source)
    assert names(vfs, b"") == [b"versions", b"branches", b"tags", b"commits", b"staging"]
    assert names(vfs, b"versions") == names(vfs, b"commits") == names(vfs, b"staging") == []
    assert code(lambda: vfs.resolve(b"latest")) == errno.ENOENT
    source.close()


def test_a_detached_head_has_latest_but_nothing_to_write_to(source: MemorySource) -> None:
    first = source.versions()[0].commit
    source.head_value = Head(None, first)
    vfs = Vfs(source)
    assert link(vfs, b"latest") == commit_path(first)
    assert b"staging" not in names(vfs, b"")
    assert names(vfs, b"versions") == []


def test_a_mount_keeps_the_branch_that_it_was_made_for(source: MemorySource, vfs: Vfs) -> None:
    source.put({(b"x",): b"x"}, "other", branch="exp")
    source.head_value = Head(BRANCHES + "exp")
    source.touch()
    vfs.expire()
    assert link(vfs, b"latest") == commit_path(source.refs["main"])
    exp = Vfs(source, "exp")
    assert link(exp, b"latest") == commit_path(source.refs["exp"])
    assert names(exp, b"versions") == [b"0001-other"]


@pytest.mark.parametrize("url", [None, "http://example.org/demo"])
def test_a_read_only_mount_has_no_staging(source: MemorySource, url: str | None) -> None:
    source.read_only, source.url = url is not None, url
    vfs = Vfs(source, read_only=url is None)
    assert b"staging" not in names(vfs, b"")
    assert code(lambda: vfs.open(vfs.resolve(b".shardfs/commit"), os.O_WRONLY)) == errno.EROFS
    vfs.close()


def test_df_tells_the_disk_of_the_repository(source: MemorySource, vfs: Vfs) -> None:
    disk, found = os.statvfs(source.store_path), vfs.statfs()
    assert found["f_blocks"] * found["f_frsize"] == disk.f_blocks * disk.f_frsize
    assert 0 < found["f_bavail"] <= found["f_blocks"]
    assert found["f_namemax"] == 255
