"""The staging area against a plain reference model: a dict tree of files with a current and a stable content."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardfs.errors import AreaError
from shardfs.staging import opened
from shardfs.staging.area import RENAME_NOREPLACE, Area
from shardfs.staging.handles import AreaFile
from shardfs.staging.nodes import ROOT, PathKey
from shardfs.staging.snapshot import Snapshot
from tests.areas import Flat, MemoryStore, crash, files, shown

MEMORY = Path("/dev/shm")
BASE: Flat = {
    (b"a",): b"alpha-alpha",
    (b"b",): (b"beta", True),
    (b"l",): "a",
    (b"d", b"a"): b"in d",
    (b"d", b"d", b"c"): b"deep",
    (b"c",): None,
}


@dataclass(eq=False)
class File:
    """A file of the model. `stable` is what commits and crashes leave: None for a file that was never closed."""

    current: bytes
    stable: bytes | None
    executable: bool = False
    dirty: bool = False
    writers: int = 0


@dataclass(eq=False)
class Folder:
    """A directory of the model."""

    entries: dict[bytes, File | Folder | str] = field(default_factory=dict)


@dataclass(eq=False)
class OpenFile:
    """A handle on both sides."""

    file: File
    handle: AreaFile
    writer: bool


Entry = File | Folder | str


def folder_of(flat: Flat) -> Folder:
    root = Folder()
    for path, value in flat.items():
        here = root
        for name in path[: -1 if value is not None else None]:
            below = here.entries.setdefault(name, Folder())
            assert isinstance(below, Folder)
            here = below
        if isinstance(value, str):
            here.entries[path[-1]] = value
        elif isinstance(value, tuple):
            here.entries[path[-1]] = File(value[0], value[0], executable=True)
        elif value is not None:
            here.entries[path[-1]] = File(value, value)
    return root


def flatten(folder: Folder, content: Callable[[File], bytes | None]) -> Flat:
    found: Flat = {}
    for name, entry in folder.entries.items():
        if isinstance(entry, Folder):
            sub = flatten(entry, content)
            found |= {(name, *path): value for path, value in sub.items()} or {(name,): None}
        elif isinstance(entry, str):
            found[name,] = entry
        elif (data := content(entry)) is not None:
            found[name,] = (data, True) if entry.executable else data
    return found


NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"l", b"\xff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
DATA = st.binary(max_size=12)
OFFSETS = st.integers(0, 16)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # In memory where possible: thousands of fsyncs on a busy disk take minutes and prove nothing here.
        self.directory = Path(tempfile.mkdtemp(prefix="area", dir=MEMORY if MEMORY.is_dir() else None))
        self.store = MemoryStore()
        self.area: Area = self.store.area(self.directory, self.store.put(BASE))
        self.root = folder_of(BASE)
        self.base = BASE
        self.open: list[OpenFile] = []
        self.snapshot: tuple[Snapshot, Flat] | None = None
        self.swept = True  # False once another process could not delete a file because of the snapshot

    def teardown(self) -> None:
        self.drop_snapshot()
        self.release_all()
        self.area.close()
        shutil.rmtree(self.directory)

    # The model's side

    def parent(self, path: PathKey) -> Folder | int:
        here = self.root
        for name in path[:-1]:
            below = here.entries.get(name)
            if below is None:
                return errno.ENOENT
            if not isinstance(below, Folder):
                return errno.ENOTDIR
            here = below
        return here

    def parent_ino(self, path: PathKey) -> int:
        return self.area.find(path[:-1]).ino

    def expect(self, code: int, action: Callable[[], object]) -> None:
        with pytest.raises(AreaError) as caught:
            action()
        assert caught.value.errno == code

    def seal(self, file: File) -> None:
        if file.dirty:
            file.stable, file.dirty = file.current, False

    def release(self, one: OpenFile) -> None:
        self.open.remove(one)
        one.handle.release()
        one.file.writers -= one.writer
        if one.file.writers == 0:
            self.seal(one.file)

    def release_all(self) -> None:
        for one in list(self.open):
            self.release(one)

    def drop_snapshot(self) -> None:
        if self.snapshot is not None:
            self.snapshot[0].close()
            self.snapshot = None

    # Names

    @rule(path=PATHS)
    def mkdir(self, path: PathKey) -> None:
        self.make(path, lambda: self.area.mkdir(self.parent_ino(path), path[-1], 0o755), Folder())

    @rule(path=PATHS)
    def symlink(self, path: PathKey) -> None:
        self.make(path, lambda: self.area.symlink(self.parent_ino(path), path[-1], b"to"), "to")

    @rule(path=PATHS)
    def mknod(self, path: PathKey) -> None:
        self.make(path, lambda: self.area.mknod(self.parent_ino(path), path[-1], 0o644), File(b"", b""))

    def make(self, path: PathKey, action: Callable[[], object], entry: Entry) -> None:
        parent = self.parent(path)
        if isinstance(parent, int):
            self.expect(parent, action)
        elif path[-1] in parent.entries:
            self.expect(errno.EEXIST, action)
        else:
            action()
            parent.entries[path[-1]] = entry

    @rule(path=PATHS)
    def unlink(self, path: PathKey) -> None:
        def action() -> None:
            self.area.unlink(self.parent_ino(path), path[-1])

        parent = self.parent(path)
        entry = errno.ENOENT if isinstance(parent, int) else parent.entries.get(path[-1])
        if isinstance(parent, int) or entry is None:
            self.expect(parent if isinstance(parent, int) else errno.ENOENT, action)
        elif isinstance(entry, Folder):
            self.expect(errno.EISDIR, action)
        else:
            action()
            del parent.entries[path[-1]]

    @rule(path=PATHS)
    def rmdir(self, path: PathKey) -> None:
        def action() -> None:
            self.area.rmdir(self.parent_ino(path), path[-1])

        parent = self.parent(path)
        entry = None if isinstance(parent, int) else parent.entries.get(path[-1])
        if isinstance(parent, int) or entry is None:
            self.expect(parent if isinstance(parent, int) else errno.ENOENT, action)
        elif not isinstance(entry, Folder):
            self.expect(errno.ENOTDIR, action)
        elif entry.entries:
            self.expect(errno.ENOTEMPTY, action)
        else:
            action()
            del parent.entries[path[-1]]

    @rule(old=PATHS, new=PATHS, keep=st.booleans())
    def rename(self, old: PathKey, new: PathKey, keep: bool) -> None:
        parent, target = self.parent(old), self.parent(new)
        if isinstance(parent, int) or isinstance(target, int) or old[-1] not in parent.entries:
            return None
        flags = RENAME_NOREPLACE if keep else 0

        def action() -> None:
            self.area.rename(self.parent_ino(old), old[-1], self.parent_ino(new), new[-1], flags)

        entry, over = parent.entries[old[-1]], target.entries.get(new[-1])
        code = self.refusal(entry, over, old, new, keep=keep)
        if code:
            return self.expect(code, action)
        if old == new:
            return action()
        action()
        if isinstance(entry, File) and isinstance(over, File) and entry.stable is None:
            entry.stable = over.stable
        target.entries[new[-1]] = parent.entries.pop(old[-1])
        return None

    @staticmethod
    def refusal(entry: Entry, over: Entry | None, old: PathKey, new: PathKey, *, keep: bool) -> int:
        """The errno of a rename, 0 when it works."""
        if over is not None and keep:
            return errno.EEXIST
        if old == new:
            return 0
        if isinstance(entry, Folder):
            if new[: len(old)] == old:
                return errno.EINVAL
            if over is not None and not isinstance(over, Folder):
                return errno.ENOTDIR
            return errno.ENOTEMPTY if over is not None and over.entries else 0
        return errno.EISDIR if isinstance(over, Folder) else 0

    @rule(path=PATHS, mode=st.sampled_from([0o644, 0o755, 0o600]))
    def chmod(self, path: PathKey, mode: int) -> None:
        parent = self.parent(path)
        entry = None if isinstance(parent, int) else parent.entries.get(path[-1])
        if isinstance(entry, File):
            self.area.chmod(self.area.find(path).ino, mode)
            entry.executable = bool(mode & 0o100)

    # Contents

    @rule(path=PATHS, flags=st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_RDONLY]))
    def open_or_create(self, path: PathKey, flags: int) -> None:
        parent = self.parent(path)
        if isinstance(parent, int) or len(self.open) > 5:
            return
        entry = parent.entries.get(path[-1])
        writer = flags & os.O_ACCMODE != os.O_RDONLY
        if entry is None and writer:
            handle = self.area.create(self.parent_ino(path), path[-1], 0o644, flags)
            parent.entries[path[-1]] = file = File(b"", None, dirty=True)
        elif isinstance(entry, File):
            handle = self.area.open_file(self.area.find(path).ino, flags)
            file = entry
            if flags & os.O_TRUNC and (entry.current or entry.dirty):
                file.current, file.dirty = b"", True
        else:
            return
        file.writers += writer
        self.open.append(OpenFile(file, handle, writer))

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9), offset=OFFSETS, data=DATA)
    def write(self, index: int, offset: int, data: bytes) -> None:
        one = self.open[index % len(self.open)]
        if not one.writer:
            return self.expect(errno.EBADF, lambda: one.handle.write(offset, data))
        one.handle.write(offset, data)
        if data:
            before = one.file.current.ljust(offset, b"\0")
            one.file.current = before[:offset] + data + before[offset + len(data) :]
            one.file.dirty = True
        return None

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9), size=OFFSETS)
    def truncate(self, index: int, size: int) -> None:
        one = self.open[index % len(self.open)]
        if not one.writer:
            return
        one.handle.truncate(size)
        if size != len(one.file.current):
            one.file.current = one.file.current[:size].ljust(size, b"\0")
            one.file.dirty = True

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9))
    def fsync(self, index: int) -> None:
        one = self.open[index % len(self.open)]
        one.handle.fsync()
        self.seal(one.file)

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9))
    def close(self, index: int) -> None:
        self.release(self.open[index % len(self.open)])

    # The other door, commits, crashes

    @rule(path=PATHS, data=DATA)
    def put(self, path: PathKey, data: bytes) -> None:
        self.swept &= self.snapshot is None
        with self.store.area(self.directory, session=False) as other:
            other.put_entry(path, self.store.file(b"", data))
        here = self.root
        for name in path[:-1]:
            below = here.entries.get(name)
            if not isinstance(below, Folder):
                below = here.entries[name] = Folder()
            here = below
        old = here.entries.get(path[-1])
        if not (isinstance(old, File) and not old.dirty and (old.stable, old.executable) == (data, False)):
            here.entries[path[-1]] = File(data, data)

    @rule(path=PATHS)
    def remove(self, path: PathKey) -> None:
        parent = self.parent(path)
        self.swept &= self.snapshot is None
        with self.store.area(self.directory, session=False) as other:
            if isinstance(parent, int) or path[-1] not in parent.entries:
                with pytest.raises(AreaError):
                    other.remove(path)
            else:
                other.remove(path)
                del parent.entries[path[-1]]

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = (self.area.snapshot(), flatten(self.root, lambda file: file.stable))

    @precondition(lambda self: self.snapshot is not None)
    @rule(elsewhere=st.booleans())
    def commit(self, elsewhere: bool) -> None:
        assert self.snapshot is not None
        snapshot, expected = self.snapshot
        tree_id = self.store.build(snapshot)
        assert self.store.flat(tree_id) == expected
        if elsewhere:
            self.swept = False
            with self.store.area(self.directory, session=False) as other:
                other.mark_committed(snapshot, tree_id)
        else:
            self.area.mark_committed(snapshot, tree_id)
        self.base = expected
        self.drop_snapshot()

    @rule()
    def reopen(self) -> None:
        self.drop_snapshot()
        self.release_all()
        self.area.close()
        self.area = self.store.area(self.directory)
        self.swept = True

    @rule()
    def kill(self) -> None:
        self.drop_snapshot()
        crash(self.area)
        self.open.clear()
        self.crash_model(self.root)
        self.area = self.store.area(self.directory)
        self.swept = True

    def crash_model(self, folder: Folder) -> None:
        for entry in folder.entries.values():
            if isinstance(entry, Folder):
                self.crash_model(entry)
            elif isinstance(entry, File):
                entry.current = entry.stable = entry.current if entry.stable is None else entry.stable
                entry.dirty, entry.writers = False, 0

    # What must hold at any time

    @invariant()
    def shows_the_current_content(self) -> None:
        assert shown(self.area) == flatten(self.root, lambda file: file.current)
        for one in self.open:
            assert one.handle.read(0, 100) == one.file.current
            assert one.handle.stat().size == len(one.file.current)

    @invariant()
    def changes_are_those_of_the_stable_content(self) -> None:
        stable = flatten(self.root, lambda file: file.stable)
        differ = {
            path
            for path in stable.keys() | self.base.keys()
            if (path in stable, stable.get(path)) != (path in self.base, self.base.get(path))
        }
        listed = {change.path for change in self.area.changes()}
        leaves = {path for path in differ if stable.get(path) is not None or self.base.get(path) is not None}
        assert leaves <= listed
        unsure = {change.path for change in self.area.changes() if change.kind.value == "modified" and not change.new}
        assert listed <= differ | unsure

    @invariant()
    def numbers_are_unique_and_lead_back(self) -> None:
        seen: set[int] = set()
        pending = [ROOT]
        while pending:
            for node in self.area.list(pending.pop()):
                assert node.ino not in seen
                seen.add(node.ino)
                assert self.area.stat(node.ino) == node
                assert self.area.lookup(node.parent, node.name) == node
                if node.is_dir:
                    pending.append(node.ino)

    @invariant()
    def no_private_file_is_left_over(self) -> None:
        if self.swept and self.snapshot is None and not self.open:
            with self.area._database.read() as db:
                named = {f"{ino}.{gen}" for ino, gen in db.execute("SELECT ino, gen FROM nodes WHERE gen IS NOT NULL")}
            assert set(files(self.area)) == named


class LayeredMachine(Machine):
    """The same with files so large that committed content stays below what is written."""

    def __init__(self) -> None:
        self.limit, opened.LAYERED_FROM = opened.LAYERED_FROM, 1
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        opened.LAYERED_FROM = self.limit


TestArea = Machine.TestCase
TestArea.settings = settings(stateful_step_count=40, deadline=None)
TestLayeredArea = LayeredMachine.TestCase
TestLayeredArea.settings = settings(stateful_step_count=40, deadline=None)
