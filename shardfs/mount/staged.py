"""`staging/`: the mutable tree of the mount's branch, over `staging.area`."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from shardfs.errors import FsError, ShardfsError
from shardfs.mount.magic import PREFIX, magic_xattr
from shardfs.mount.names import UNCOUNTED
from shardfs.mount.nodes import Attr, Handle, Named, Node
from shardfs.mount.source import Source
from shardfs.mount.view import View
from shardfs.staging.area import Area, AreaFile
from shardfs.staging.nodes import NodeKind, NodeStat

_TYPES: Final = {NodeKind.DIR: stat.S_IFDIR, NodeKind.FILE: stat.S_IFREG, NodeKind.LINK: stat.S_IFLNK}
SESSION_WAIT_S: Final = 1.0  # a program that opens a file for writing waits this long for another mount's end
_USER: Final = b"user."


class StagedHandle(Handle):
    """An open file of the staging area."""

    def __init__(self, node: Node, file: AreaFile) -> None:
        super().__init__(node)
        self._file = file

    def getattr(self) -> Attr:
        """Attributes as of now, also after an unlink."""
        return _attr(self._file.stat())

    def read(self, offset: int, size: int) -> bytes:
        """Bytes as last written by anybody."""
        return self._file.read(offset, size)

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write all of `data`."""
        return self._file.write(offset, data)

    def truncate(self, size: int) -> None:
        """Cut, or extend with zeros."""
        self._file.truncate(size)

    def utimens(self, mtime_ns: int) -> None:
        """Set the modification time."""
        self._file.utimens(mtime_ns)

    def shares(self, other: Handle) -> bool:
        """Not if the content was replaced from outside meanwhile."""
        return isinstance(other, StagedHandle) and self._file.shares(other._file)

    def backing(self) -> int | None:
        """The private file, where the area need not see what is written to it."""
        return self._file.backing()

    def flush(self) -> None:
        """A descriptor was closed."""
        self._file.flush()

    def fsync(self) -> None:
        """Make it durable and what commits take."""
        self._file.fsync()

    def release(self) -> None:
        """Close."""
        self._file.release()


class StagedView(View):
    """Answers for `staging/`.

    The session, the right to write through handles, is taken at the first such write: a mount that only reads
    keeps nobody from writing.
    """

    def __init__(self, source: Source, branch: str, refresh: Callable[[], object], who: str) -> None:
        """Open the area.

        Args:
            source: the repository.
            branch: short name.
            refresh: called when somebody looks, so that a moved tip is noticed.
            who: names this mount to those who find the session taken.
        """
        self._source = source
        self._branch = branch
        self._refresh = refresh
        self._who = who
        self._guard = threading.Lock()
        self._in_session = False
        self._area: Area = source.area(branch)
        self.root = Node(self, self._area.root, stat.S_IFDIR, self._area.root)

    def describe(self, node: Node) -> str:
        """The name in staging, or the number where there is none any more."""
        with suppress(ShardfsError, OSError):
            return f"staging:{os.fsdecode(self._area.stat(node.key).name)}"
        return f"staging:{node.ino}"

    def rebase(self) -> None:
        """Follow the branch's tip after another process moved it."""
        self._source.area(self._branch)

    def lookup(self, parent: Node, name: bytes) -> Node:
        """The entry `name` of a directory."""
        self._refresh()
        return self._node(self._area.lookup(parent.key, name))

    def find(self, node: Node, names: Sequence[bytes]) -> Named:
        """The node at a path: one question to the area instead of one for each name."""
        if node.key != self._area.root:
            return super().find(node, names)
        self._refresh()
        found = self._area.find(tuple(names))
        return Named(found.name, self._node(found), _attr(found))

    def entries(self, node: Node) -> Iterator[Named]:
        """The entries of a directory."""
        self._refresh()
        for found in self._area.list(node.key):
            yield Named(found.name, self._node(found), _attr(found))

    def getattr(self, node: Node) -> Attr:
        """Attributes as of now."""
        self._refresh()
        return _attr(self._area.stat(node.key))

    def readlink(self, node: Node) -> bytes:
        """The target of a link."""
        return self._area.readlink(node.key)

    def open(self, node: Node, flags: int) -> Handle:
        """Open a file."""
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._start_session()
        return StagedHandle(node, self._area.open_file(node.key, flags))

    def create(self, parent: Node, name: bytes, mode: int, flags: int) -> Handle:
        """Make a file and open it."""
        self._start_session()
        file = self._area.create(parent.key, name, mode, flags)
        return StagedHandle(Node(self, file.ino, stat.S_IFREG, file.ino), file)

    def mknod(self, parent: Node, name: bytes, mode: int) -> Node:
        """Make an empty file."""
        self._start_session()
        return self._node(self._area.mknod(parent.key, name, mode))

    def mkdir(self, parent: Node, name: bytes, mode: int) -> Node:
        """Make a directory."""
        return self._node(self._area.mkdir(parent.key, name, mode))

    def symlink(self, parent: Node, name: bytes, target: bytes) -> Node:
        """Make a symbolic link."""
        return self._node(self._area.symlink(parent.key, name, target))

    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a file or link; open handles keep working."""
        self._area.unlink(parent.key, name)

    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory."""
        self._area.rmdir(parent.key, name)

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int) -> None:
        """Move an entry; flags are those of renameat2."""
        self._area.rename(parent.key, name, new_parent.key, new_name, flags)

    def chmod(self, node: Node, mode: int) -> None:
        """Set permission bits; commits keep whether the owner may execute."""
        self._area.chmod(node.key, mode)

    def utimens(self, node: Node, mtime_ns: int) -> None:
        """Set the modification time."""
        self._area.utimens(node.key, mtime_ns)

    def truncate(self, node: Node, size: int) -> None:
        """Cut or extend by name."""
        self._start_session()
        self._area.truncate(node.key, size)

    def fsync_dir(self, node: Node) -> None:
        """Make changes of names durable."""
        self._area.sync(node.key)

    def get_xattr(self, node: Node, name: bytes) -> bytes:
        """Magic attributes of what is stored by reference, else those that were set."""
        if name.startswith(PREFIX):
            return magic_xattr(self._source, name, self._area.stat(node.key).entry, None)
        if not name.startswith(_USER):
            raise FsError(errno.ENODATA)
        return self._area.get_xattr(node.key, name)

    def list_xattrs(self, node: Node) -> list[bytes]:
        """Those that were set."""
        return self._area.list_xattrs(node.key)

    def set_xattr(self, node: Node, name: bytes, value: bytes, flags: int) -> None:
        """Kept in the area, never committed. Only user.*; the magic names are refused."""
        self._area.set_xattr(node.key, _settable(name), value, flags)

    def remove_xattr(self, node: Node, name: bytes) -> None:
        """Remove an attribute that was set."""
        self._area.remove_xattr(node.key, _settable(name))

    def _start_session(self) -> None:
        if self._in_session:
            return
        with self._guard:
            if not self._in_session:
                self._area.start_session(self._who, SESSION_WAIT_S)
                self._in_session = True

    def _node(self, found: NodeStat) -> Node:
        return Node(self, found.ino, _TYPES[found.kind], found.ino)


def _settable(name: bytes) -> bytes:
    if name.startswith(PREFIX):
        raise FsError(errno.EPERM)
    if not name.startswith(_USER):
        raise FsError(errno.EOPNOTSUPP)
    return name


def _attr(found: NodeStat) -> Attr:
    nlink = UNCOUNTED if found.is_dir else 1
    return Attr(found.ino, found.mode, found.size, found.mtime_ns, nlink, found.ctime_ns)
