"""The vfs against references: staging against a real directory of the disk, commits against plain trees."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import FsError, NothingToCommitError
from shardfs.mount.nodes import Handle
from shardfs.mount.vfs import Vfs
from tests.areas import Flat
from tests.memory_repository import MemorySource, commit_path, link, names, walk

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
DATA = st.binary(max_size=40)
OFFSETS = st.integers(0, 60)
OPERATIONS = st.one_of(
    st.tuples(st.just("create"), PATHS, DATA),
    st.tuples(st.just("write"), PATHS, OFFSETS, DATA),
    st.tuples(st.just("append"), PATHS, DATA),
    st.tuples(st.just("truncate"), PATHS, OFFSETS),
    st.tuples(st.just("mkdir"), PATHS),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("unlink"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("symlink"), PATHS, NAMES),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o644, 0o755, 0o600])),
    st.tuples(st.just("hold"), PATHS),
    st.tuples(st.just("write held"), OFFSETS, DATA),
    st.tuples(st.just("let go")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("again")),
)
Snapshot = dict[str, tuple[int, bytes]]


class Plain:
    """The operations on a directory of the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.held: list[int] = []

    def open(self, path: str, flags: int) -> int:
        return os.open(self.root / path, flags | os.O_NOFOLLOW, 0o644)

    def store(self, path: str, flags: int, offset: int, data: bytes) -> None:
        fd = self.open(path, flags)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def do(self, name: str, *args: object) -> None:
        getattr(self, name.replace(" ", "_"))(*args)

    def create(self, path: str, data: bytes) -> None:
        self.store(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0, data)

    def write(self, path: str, offset: int, data: bytes) -> None:
        self.store(path, os.O_WRONLY, offset, data)

    def append(self, path: str, data: bytes) -> None:
        self.store(path, os.O_WRONLY | os.O_APPEND, 0, data)

    def truncate(self, path: str, size: int) -> None:
        fd = self.open(path, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def mkdir(self, path: str) -> None:
        (self.root / path).mkdir(mode=0o755)

    def rmdir(self, path: str) -> None:
        (self.root / path).rmdir()

    def unlink(self, path: str) -> None:
        (self.root / path).unlink()

    def rename(self, old: str, new: str) -> None:
        (self.root / old).replace(self.root / new)

    def symlink(self, path: str, target: str) -> None:
        (self.root / path).symlink_to(target)

    def chmod(self, path: str, mode: int) -> None:
        fd = self.open(path, os.O_RDONLY)
        try:
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def hold(self, path: str) -> None:
        self.held.append(self.open(path, os.O_RDWR))

    def write_held(self, offset: int, data: bytes) -> None:
        if self.held:
            os.pwrite(self.held[-1], data, offset)

    def let_go(self) -> None:
        if self.held:
            os.close(self.held.pop())

    def commit(self) -> None:
        pass

    again = commit

    def snapshot(self) -> Snapshot:
        found: Snapshot = {}
        for path in self.root.rglob("*"):
            mode = path.lstat().st_mode
            name = str(path.relative_to(self.root))
            if stat.S_ISDIR(mode):
                found[name] = (stat.S_IFDIR, b"")
            elif stat.S_ISLNK(mode):
                found[name] = (stat.S_IFLNK, os.fsencode(path.readlink()))
            else:
                found[name] = (mode, path.read_bytes())
        return found


class Shown(Plain):
    """The same operations through the vfs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = MemorySource(folder)
        self.source.put({}, "nothing yet")
        self.vfs = Vfs(self.source)
        self.handles: list[Handle] = []

    def handle(self, path: str, flags: int) -> Handle:
        if flags & os.O_CREAT:
            folder, name = self.vfs.parent_of(b"staging/" + path.encode())
            return self.vfs.create(folder, name, 0o644, flags)
        return self.vfs.open(self.vfs.resolve(b"staging/" + path.encode()), flags)

    def using(self, path: str, flags: int, action: Callable[[Handle], object]) -> None:
        handle = self.handle(path, flags)
        try:
            action(handle)
            self.vfs.flush(handle)
        finally:
            self.vfs.release(handle)

    def store(self, path: str, flags: int, offset: int, data: bytes) -> None:
        self.using(path, flags, lambda handle: self.vfs.write(handle, offset, data))

    def truncate(self, path: str, size: int) -> None:
        self.using(path, os.O_WRONLY, lambda handle: self.vfs.ftruncate(handle, size))

    def mkdir(self, path: str) -> None:
        self.vfs.mkdir(*self.vfs.parent_of(b"staging/" + path.encode()), 0o755)

    def rmdir(self, path: str) -> None:
        self.vfs.rmdir(*self.vfs.parent_of(b"staging/" + path.encode()))

    def unlink(self, path: str) -> None:
        self.vfs.unlink(*self.vfs.parent_of(b"staging/" + path.encode()))

    def rename(self, old: str, new: str) -> None:
        parents = (self.vfs.parent_of(b"staging/" + path.encode()) for path in (old, new))
        (one, name), (two, new_name) = parents
        self.vfs.rename(one, name, two, new_name)

    def symlink(self, path: str, target: str) -> None:
        folder, name = self.vfs.parent_of(b"staging/" + path.encode())
        self.vfs.symlink(folder, name, target.encode())

    def chmod(self, path: str, mode: int) -> None:
        node = self.vfs.resolve(b"staging/" + path.encode())
        if node.type == stat.S_IFLNK:
            raise OSError(40, "the reference opens without following")
        self.vfs.chmod(node, mode)

    def hold(self, path: str) -> None:
        self.handles.append(self.handle(path, os.O_RDWR))

    def write_held(self, offset: int, data: bytes) -> None:
        if self.handles:
            self.vfs.write(self.handles[-1], offset, data)

    def let_go(self) -> None:
        if self.handles:
            self.vfs.release(self.handles.pop())

    def commit(self) -> None:
        with suppress(NothingToCommitError):
            self.source.commit("commit")
        self.vfs.expire()

    def again(self) -> None:
        """Mount again: open files are let go of, everything else must be as before."""
        if self.handles:
            return
        self.source.end_areas()
        self.vfs = Vfs(self.source)

    def snapshot(self) -> Snapshot:
        found: Snapshot = {}
        for path, node in walk(self.vfs, self.vfs.resolve(b"staging")):
            name, mode = path.decode(), self.vfs.getattr(node).mode
            if node.is_dir:
                found[name] = (stat.S_IFDIR, b"")
            elif node.type == stat.S_IFLNK:
                found[name] = (stat.S_IFLNK, self.vfs.readlink(node))
            else:
                handle = self.vfs.open(node, os.O_RDONLY)
                found[name] = (mode, self.vfs.read(handle, 0, 1 << 20))
                self.vfs.release(handle)
        return found

    def close(self) -> None:
        while self.handles:
            self.let_go()
        self.source.close()


def outcome(place: Plain, operation: tuple[object, ...]) -> str:
    name, *args = operation
    try:
        place.do(str(name), *args)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "done"


def follows_a_link(root: Path, operation: tuple[object, ...]) -> bool:
    """Whether a path of an operation leads through a link: kernels follow those before they ask a file system."""
    paths = [Path(arg) for arg in operation[1:] if isinstance(arg, str)]
    return any((root / folder).is_symlink() for path in paths for folder in path.parents)


@given(st.lists(OPERATIONS, max_size=25))
def test_staging_does_what_a_directory_does(operations: list[tuple[object, ...]]) -> None:
    folder = Path(tempfile.mkdtemp())
    shown = Shown(folder / "store")
    try:
        (folder / "plain").mkdir()
        plain = Plain(folder / "plain")
        for number, operation in enumerate(operations):
            if follows_a_link(plain.root, operation):
                continue
            expected = outcome(plain, operation)
            assert outcome(shown, operation) == expected, (number, operation)
        assert shown.snapshot() == plain.snapshot()
        while plain.held:
            plain.let_go()
    finally:
        shown.close()
        shutil.rmtree(folder)


LEAVES = st.one_of(DATA, NAMES, st.tuples(DATA, st.just(True)))
FLAT = st.dictionaries(st.lists(NAMES.map(str.encode), min_size=2, max_size=2).map(tuple), LEAVES, max_size=6)
COMMITS = st.lists(st.tuples(FLAT, st.sampled_from(["main", "exp/one", "exp/two"])), min_size=1, max_size=8)


def content_of(vfs: Vfs, path: bytes) -> Flat:
    """The leaves below a committed directory."""
    found: Flat = {}
    for name, node in walk(vfs, vfs.resolve(path)):
        key = tuple(name.split(b"/"))
        if node.type == stat.S_IFLNK:
            found[key] = vfs.readlink(node).decode()
        elif not node.is_dir:
            handle = vfs.open(node, os.O_RDONLY)
            data = vfs.read(handle, 0, 1 << 20)
            found[key] = (data, True) if vfs.getattr(node).mode & 0o100 else data
    return found


@given(COMMITS, st.data())
def test_every_history_is_shown_as_it_is(commits: list[tuple[Flat, str]], data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp())
    source = MemorySource(folder)
    try:
        vfs = Vfs(source, "main")
        expected: dict[bytes, Flat] = {}
        for flat, branch in commits:
            id_ = source.put(flat, "message", branch)
            expected[commit_path(id_)] = flat
            if data.draw(st.booleans()):
                vfs.expire()
                assert {b"commits/" + name for name in names(vfs, b"commits")} == set(expected)
        vfs.expire()
        for path, flat in expected.items():
            assert content_of(vfs, path) == flat
        for branch, tip in source.refs.items():
            assert link(vfs, b"branches/" + branch.encode()).endswith(commit_path(tip))
        assert len(names(vfs, b"versions")) == sum(branch == "main" for _, branch in commits)
        with suppress(FsError):
            assert link(vfs, b"latest") == commit_path(source.refs["main"])
    finally:
        source.close()
        shutil.rmtree(folder)
