"""One mounted branch with the model of what it must show, and the operations that programs do in its staging area."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mount.conftest import FRESH_S, eventually
from tests.soak import contents
from tests.soak.served import Served
from tests.soak.tree import DIRECTORY, File, Leaf, Link, Place, Snapshot, Tree

LATE_S = 5 * FRESH_S  # what other processes do is seen within a second, on a machine that does nothing else


@dataclass(eq=False)
class Held:
    """A file that a program has open for writing; `fresh`: it made it, or emptied it."""

    fd: int
    file: File
    fresh: bool


@dataclass(eq=False)
class Staged:
    """A branch.

    Attributes:
        log: takes a line for each thing done to a path.
        commits: its first-parent history, oldest first: id and content.
        held: files that are open for writing.
        unsure: files that a killed daemon had open, and what they held.
    """

    served: Served
    chance: random.Random
    log: Callable[[str], object]
    tree: Tree = field(default_factory=Tree)
    commits: list[tuple[str, Snapshot]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    unsure: dict[File, bytes] = field(default_factory=dict)

    @property
    def tip(self) -> Snapshot:
        return self.commits[-1][1] if self.commits else {}

    # What the mount shows

    def check(self, path: Place = ()) -> None:
        """Compare one path of staging, or all of it."""
        if path:
            expected = self.tree.shown().get(path)
            found = leaf_at(self.real(path))
            assert found == expected, (self.served.branch, path, told(found), told(expected))
            return
        expected_all = self.tree.shown()
        found_all: Snapshot = {}

        def same() -> bool:
            nonlocal found_all
            found_all = read_all(self.real(()))
            return found_all == expected_all

        assert eventually(same, LATE_S), (self.served.branch, difference(found_all, expected_all))

    def check_commit(self, id_: str, snapshot: Snapshot) -> None:
        """Compare a whole commit."""
        found = read_all(self.served.point / "commits" / id_)
        assert found == snapshot, (id_, difference(found, snapshot))

    def real(self, path: Place) -> Path:
        self.log(f"  {self.served.branch} {path}")
        return self.served.staging.joinpath(*path)

    # Choosing

    def existing(self, *kinds: type) -> Place:
        """A path that is there, or now and then one that is not."""
        paths = [p for p in self.tree.paths(kinds or (File, Link, dict)) if p[0] != "pushed"]
        return self.chance.choice(paths) if paths and self.chance.random() < 0.9 else self.new()

    def new(self) -> Place:
        """A path in a directory that is there, or now and then any."""
        folders = [(), *(p for p in self.tree.paths(dict) if len(p) < contents.DEPTH and p[0] != "pushed")]
        if self.chance.random() < 0.8:
            return (*self.chance.choice(folders), self.chance.choice(contents.NAMES))
        return contents.path(self.chance)

    # Doing

    def both(self, model: Callable[[], object], real: Callable[[], object]) -> bool:
        """Do the same in the model and through the mount; whether it succeeded."""
        expected, found = _errno(model), _errno(real)
        assert found == expected, f"{_name(found)} instead of {_name(expected)}"
        return not found

    def write_file(self) -> None:
        """A program makes a file."""
        path, data = self.new(), self._data()
        self._store(path, os.O_CREAT | os.O_EXCL, lambda: self.tree.create(path), lambda fd, _: _write(fd, data, 0))

    def _data(self) -> bytes:
        return contents.weights(self.chance) if self.chance.random() < 0.15 else contents.some(self.chance)

    def rewrite_file(self) -> None:
        """A program replaces the content of a file, or trains a model a little more."""
        path = self.existing(File)

        def write(fd: int, file: File) -> bytes:
            model = contents.is_model(file.data)
            data = contents.trained(file.data, self.chance) if model else self._data()
            return _write(fd, data, 0)

        self._store(path, os.O_TRUNC, lambda: self.tree.file(path), write)

    def write_inside(self) -> None:
        """A program writes somewhere in a file, also behind its end."""
        path = self.existing(File)

        def write(fd: int, file: File) -> bytes:
            data = self.chance.randbytes(self.chance.randrange(1, 20_000))
            offset = self.chance.randrange(len(file.data) + 5000)
            _write(fd, data, offset)
            return patched(file.data, offset, data)

        self._store(path, 0, lambda: self.tree.file(path), write)

    def append(self) -> None:
        """A program appends to its log."""
        path, data = self.existing(File), self.chance.randbytes(self.chance.randrange(1, 5000))
        self._store(path, os.O_APPEND, lambda: self.tree.file(path), lambda fd, file: file.data + _write(fd, data, 0))

    def cut(self) -> None:
        """A program changes the size of a file."""
        path = self.existing(File)

        def cut(fd: int, file: File) -> bytes:
            size = self.chance.randrange(2 * len(file.data) + 100) % (4 << 20)
            os.ftruncate(fd, size)
            return file.data[:size].ljust(size, b"\0")

        self._store(path, 0, lambda: self.tree.file(path), cut)

    def map(self) -> None:
        """A program writes to a shared mapping of a file."""
        path = self.existing(File)

        def write(fd: int, file: File) -> bytes:
            if not file.data:
                return file.data
            offset = self.chance.randrange(len(file.data))
            data = self.chance.randbytes(min(self.chance.randrange(1, 9000), len(file.data) - offset))
            with mmap.mmap(fd, len(file.data)) as mapping:
                mapping[offset : offset + len(data)] = data
                if self.chance.random() < 0.5:
                    mapping.flush()
                    self._synced(file, patched(file.data, offset, data))  # msync is fsync
            return patched(file.data, offset, data)

        self._store(path, 0, lambda: self.tree.file(path), write)

    def _store(self, path: Place, flags: int, model: Callable[[], File], write: Callable[[int, File], bytes]) -> None:
        """Open a file, change it, and close it or keep it open."""
        fd, file = -1, File()

        def find() -> None:
            nonlocal file
            file = model()

        def open_() -> None:
            nonlocal fd
            fd = os.open(self.real(path), os.O_RDWR | os.O_NOFOLLOW | flags, 0o644)

        if not self.both(find, open_):
            return
        file.data = write(fd, file)
        held = Held(fd, file, bool(flags & (os.O_CREAT | os.O_TRUNC)))
        keep = self.chance.random() < 0.05 and len(self.held) < 5
        if keep:
            self.held.append(held)
            self.log(f"  held as {fd}")
        if self.chance.random() < 0.1:
            self._sync(fd, file)
        if not keep:
            self._close(fd, file)
        self.check(path)

    def _sync(self, fd: int, file: File) -> None:
        self.log("  fsync")
        os.fsync(fd)
        self._synced(file, file.data)

    def _synced(self, file: File, data: bytes) -> None:
        file.stable = data
        file.live = any(held.file is file and held.fresh for held in self.held)

    def _close(self, fd: int, file: File) -> None:
        if file.live:
            self._sync(fd, file)
        self.log(f"  close {fd}")
        os.close(fd)
        if not any(held.file is file for held in self.held):
            file.stable, file.live = file.data, False

    def use_held(self) -> None:
        """A program goes on with a file that it has open, whatever became of its name."""
        if not self.held:
            return
        held = self.chance.choice(self.held)
        fd, file = held.fd, held.file
        self.log(f"  {self.served.branch} {fd}")
        found = os.pread(fd, len(file.data) + 1, 0)
        assert found == file.data, (self.served.branch, fd, told(file.leaf(found)), told(file.leaf(file.data)))
        action = self.chance.random()
        if action < 0.5:
            self.log("  write")
            data, offset = self.chance.randbytes(100), self.chance.randrange(len(file.data) + 100)
            if not _appends(fd):
                os.pwrite(fd, data, offset)
                file.data = patched(file.data, offset, data)
            if file.live:
                self._sync(fd, file)
        elif action < 0.7:
            self._sync(fd, file)
        else:
            self.let_go(held)

    def let_go(self, held: Held) -> None:
        self.held.remove(held)
        self._close(held.fd, held.file)

    def mkdir(self) -> None:
        path = self.new()
        if len(path) < contents.DEPTH:
            self.both(lambda: self.tree.mkdir(path), lambda: self.real(path).mkdir())

    def rmdir(self) -> None:
        path = self.existing(dict)
        self.both(lambda: self.tree.rmdir(path), lambda: self.real(path).rmdir())

    def unlink(self) -> None:
        path = self.existing()
        self.both(lambda: self.tree.unlink(path), lambda: self.real(path).unlink())

    def remove_all(self) -> None:
        """`rm -r` of a directory."""
        path = self.existing(dict)
        if _errno(lambda: self.tree.folder(path)):
            return
        for below in reversed([p for p in self.tree.paths() if p[: len(path)] == path]):
            if isinstance(self.tree.get(below), dict):
                continue
            self.both(lambda p=below: self.tree.unlink(p), lambda p=below: self.real(p).unlink())  # type: ignore[misc]
        folders = [p for p in self.tree.paths(dict) if p[: len(path)] == path]
        for below in sorted(folders, key=len, reverse=True):
            self.both(lambda p=below: self.tree.rmdir(p), lambda p=below: self.real(p).rmdir())  # type: ignore[misc]

    def symlink(self) -> None:
        path, target = self.new(), f"nowhere/{self.chance.randrange(1000)}"
        if self.both(lambda: self.tree.symlink(path, target), lambda: self.real(path).symlink_to(target)):
            self.check(path)

    def rename(self) -> None:
        old, new = self.existing(), self.existing() if self.chance.random() < 0.4 else self.new()
        if _depth(self.tree, old) + len(new) > contents.DEPTH + 1:
            return
        self.both(lambda: self.tree.rename(old, new), lambda: self.real(old).rename(self.real(new)))

    def chmod(self) -> None:
        path, mode = self.existing(File), self.chance.choice((0o644, 0o755, 0o700, 0o600))
        if _errno(lambda: self.tree.file(path)):
            return
        self.tree.file(path).executable = bool(mode & 0o100)
        self.real(path).chmod(mode)
        self.check(path)

    # What ends

    def after_kill(self) -> None:
        """What a killed daemon leaves: of files that were being written the stable content.

        Or what they hold, if a descriptor of them was closed and nobody wrote on. Each fork for a command does that.
        """
        self.unsure.clear()
        for held in self.held:
            with suppress(OSError):
                os.close(held.fd)
            file = held.file
            self.unsure.setdefault(file, file.data)
            file.data = file.stable = file.data if file.stable is None else file.stable
            file.live = False
        self.held.clear()

    def see_what_was_closed(self) -> None:
        """Have the model take what the next daemon shows, where it may have one content or the other."""
        for path in self.tree.paths(File):
            file = self.tree.file(path)
            found = leaf_at(self.real(path)) if file in self.unsure else None
            if found is not None and found.data == self.unsure[file]:
                file.data = file.stable = found.data
        self.unsure.clear()


def leaf_at(path: Path) -> Leaf | None:
    """What is at a path."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(mode):
        return DIRECTORY
    if stat.S_ISLNK(mode):
        return Leaf("l", os.fsencode(path.readlink()))
    return Leaf("x" if mode & 0o100 else "f", path.read_bytes())


def read_all(root: Path) -> Snapshot:
    """Everything below a directory."""
    found: Snapshot = {}
    pending: list[Place] = [()]
    while pending:
        place = pending.pop()
        for name in os.listdir(root.joinpath(*place)):
            path = (*place, name)
            leaf = leaf_at(root.joinpath(*path))
            if leaf is None:
                continue  # the next look finds it gone
            found[path] = leaf
            if leaf is DIRECTORY:
                pending.append(path)
    return found


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """What a write leaves of a file."""
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]


def difference(found: Snapshot, expected: Snapshot) -> list[tuple[Place, str, str]]:
    """What differs, for people."""
    paths = sorted(p for p in found.keys() | expected.keys() if found.get(p) != expected.get(p))
    return [(p, told(found.get(p)), told(expected.get(p))) for p in paths[:5]]


def told(leaf: Leaf | None) -> str:
    return "nothing" if leaf is None else f"{leaf.kind} of {len(leaf.data)} bytes {leaf.data[:8].hex()}"


def _errno(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def _name(code: int) -> str:
    return errno.errorcode.get(code, "success")


def _write(fd: int, data: bytes, offset: int) -> bytes:
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:]) if _appends(fd) else os.pwrite(fd, data[done:], offset + done)
    return data


def _appends(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)


def _depth(tree: Tree, path: Place) -> int:
    """How many names long the longest path from a node on is, itself included."""
    return max((len(p) - len(path) + 1 for p in tree.paths() if p[: len(path)] == path), default=1)
