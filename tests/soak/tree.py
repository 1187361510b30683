"""What a staging area must do, in plain Python: a tree in memory with the errors of Linux."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

Place = tuple[str, ...]


class Leaf(NamedTuple):
    """A file ("f", or "x" when it can be executed), a link ("l") or an empty or full directory ("d")."""

    kind: str
    data: bytes = b""


Snapshot = dict[Place, Leaf]
DIRECTORY = Leaf("d")


@dataclass(eq=False)
class File:
    """A file.

    Attributes:
        data: what readers see.
        stable: what a commit takes; None while a new file was never closed.
        executable: by its owner.
        live: it was made or emptied, and fsynced, by a program that still has it open. A commit takes nothing from it
            when it was written to since.
    """

    data: bytes = b""
    stable: bytes | None = None
    executable: bool = False
    live: bool = False

    def leaf(self, data: bytes) -> Leaf:
        return Leaf("x" if self.executable else "f", data)


@dataclass(eq=False)
class Link:
    target: str


Folder = dict[str, "Node"]
Node = File | Link | Folder


def fail(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


class Tree:
    """A mutable tree. Links lead nowhere: their targets are never there."""

    def __init__(self) -> None:
        self.root: Folder = {}

    # Looking

    def folder(self, path: Place) -> Folder:
        here = self.root
        for name in path:
            found = here.get(name)
            if found is None or isinstance(found, Link):
                fail(errno.ENOENT)
            if isinstance(found, File):
                fail(errno.ENOTDIR)
            here = found
        return here

    def get(self, path: Place) -> Node:
        if not path:
            return self.root
        folder = self.folder(path[:-1])
        return folder[path[-1]] if path[-1] in folder else fail(errno.ENOENT)

    def file(self, path: Place) -> File:
        """A file that is opened for writing, links not followed."""
        found = self.get(path)
        if isinstance(found, Link):
            fail(errno.ELOOP)
        if isinstance(found, dict):
            fail(errno.EISDIR)
        return found

    def paths(self, kind: type | tuple[type, ...] = (File, Link, dict)) -> list[Place]:
        """Paths of all nodes of a kind, in an order that depends on the tree alone."""
        found: list[Place] = []
        pending: list[tuple[Place, Folder]] = [((), self.root)]
        while pending:
            place, folder = pending.pop()
            for name, node in sorted(folder.items()):
                if isinstance(node, kind):
                    found.append((*place, name))
                if isinstance(node, dict):
                    pending.append(((*place, name), node))
        return found

    def shown(self) -> Snapshot:
        """What the mount shows."""
        return self._flat(stable=False)

    def committable(self) -> Snapshot:
        """What a commit takes."""
        return self._flat(stable=True)

    def _flat(self, *, stable: bool) -> Snapshot:
        found: Snapshot = {}
        for path in self.paths():
            node = self.get(path)
            if isinstance(node, dict):
                found[path] = DIRECTORY
            elif isinstance(node, Link):
                found[path] = Leaf("l", node.target.encode())
            else:
                data = node.stable if stable else node.data
                if data is not None:
                    found[path] = node.leaf(data)
        return found

    # Changing

    def load(self, snapshot: Snapshot) -> None:
        """Make the tree what a commit holds."""
        self.root = {}
        for path, leaf in sorted(snapshot.items()):
            self.put(path, leaf)

    def put(self, path: Place, leaf: Leaf) -> None:
        """Put a leaf at a path; missing parents are made."""
        folder = self.root
        for name in path[:-1]:
            below = folder.setdefault(name, {})
            assert isinstance(below, dict)
            folder = below
        if leaf.kind == "d":
            folder.setdefault(path[-1], {})
        elif leaf.kind == "l":
            folder[path[-1]] = Link(leaf.data.decode())
        else:
            folder[path[-1]] = File(leaf.data, leaf.data, executable=leaf.kind == "x")

    def create(self, path: Place) -> File:
        """As O_CREAT | O_EXCL."""
        folder = self.folder(path[:-1])
        if path[-1] in folder:
            fail(errno.EEXIST)
        made = folder[path[-1]] = File()
        return made

    def mkdir(self, path: Place) -> None:
        folder = self.folder(path[:-1])
        if path[-1] in folder:
            fail(errno.EEXIST)
        folder[path[-1]] = {}

    def symlink(self, path: Place, target: str) -> None:
        folder = self.folder(path[:-1])
        if path[-1] in folder:
            fail(errno.EEXIST)
        folder[path[-1]] = Link(target)

    def unlink(self, path: Place) -> None:
        if isinstance(self.get(path), dict):
            fail(errno.EISDIR)
        del self.folder(path[:-1])[path[-1]]

    def rmdir(self, path: Place) -> None:
        found = self.get(path)
        if not isinstance(found, dict):
            fail(errno.ENOTDIR)
        if found:
            fail(errno.ENOTEMPTY)
        del self.folder(path[:-1])[path[-1]]

    def rename(self, old: Place, new: Place) -> None:
        source, target = self.folder(old[:-1]), self.folder(new[:-1])
        moved = self.get(old)
        if old == new[: len(old)] and len(new) > len(old):
            fail(errno.EINVAL)
        if new == old[: len(new)] and len(old) > len(new):
            fail(errno.ENOTEMPTY)
        if old == new:
            return
        there = target.get(new[-1])
        if there is not None:
            if isinstance(moved, dict) and not isinstance(there, dict):
                fail(errno.ENOTDIR)
            if not isinstance(moved, dict) and isinstance(there, dict):
                fail(errno.EISDIR)
            if isinstance(there, dict) and there:
                fail(errno.ENOTEMPTY)
            if isinstance(moved, File) and moved.stable is None and isinstance(there, File):
                moved.stable = there.stable  # until it is closed, a commit finds the file that it replaced
        del source[old[-1]]
        target[new[-1]] = moved
