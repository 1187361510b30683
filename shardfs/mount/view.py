"""The interface of the parts of a mount. What a part does not override is refused, as on a read-only disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from shardfs.errors import FsError
from shardfs.mount.nodes import Attr, Handle, Named, Node


class View:
    """One part of a mount: it answers for the nodes that it made."""

    def describe(self, node: Node) -> str:
        """What a node is, for people; never raises."""
        return f"{type(self).__name__}:{node.ino}"

    def lookup(self, parent: Node, name: bytes) -> Node:
        """The entry `name` of a directory.

        Raises:
            FsError: ENOENT, ENOTDIR.
        """
        raise FsError(errno.ENOTDIR)

    def find(self, node: Node, names: Sequence[bytes]) -> Named:
        """The node at a path below a directory, with its attributes when they are at hand.

        Raises:
            FsError: ENOENT, ENOTDIR.
        """
        for name in names:
            node = node.view.lookup(node, name)
        return Named(names[-1] if names else b"", node)

    def entries(self, node: Node) -> Iterator[Named]:
        """The entries of a directory, without "." and ".."."""
        raise FsError(errno.ENOTDIR)

    def getattr(self, node: Node) -> Attr:
        """Attributes of a node."""
        raise NotImplementedError

    def readlink(self, node: Node) -> bytes:
        """The target of a link."""
        raise FsError(errno.EINVAL)

    def open(self, node: Node, flags: int) -> Handle:
        """Open a file; `flags` are those of the system call."""
        raise FsError(errno.EISDIR)

    def create(self, parent: Node, name: bytes, mode: int, flags: int) -> Handle:
        """Make a file and open it."""
        raise FsError(errno.EROFS)

    def mknod(self, parent: Node, name: bytes, mode: int) -> Node:
        """Make an empty file."""
        raise FsError(errno.EROFS)

    def mkdir(self, parent: Node, name: bytes, mode: int) -> Node:
        """Make a directory."""
        raise FsError(errno.EROFS)

    def symlink(self, parent: Node, name: bytes, target: bytes) -> Node:
        """Make a symbolic link."""
        raise FsError(errno.EROFS)

    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a file or link."""
        raise FsError(errno.EROFS)

    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory."""
        raise FsError(errno.EROFS)

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int) -> None:
        """Move an entry within this view."""
        raise FsError(errno.EROFS)

    def chmod(self, node: Node, mode: int) -> None:
        """Set permission bits."""
        raise FsError(errno.EROFS)

    def utimens(self, node: Node, mtime_ns: int) -> None:
        """Set the modification time."""
        raise FsError(errno.EROFS)

    def truncate(self, node: Node, size: int) -> None:
        """Cut or extend a file."""
        raise FsError(errno.EROFS)

    def fsync_dir(self, node: Node) -> None:
        """Make changes of a directory durable."""

    def get_xattr(self, node: Node, name: bytes) -> bytes:
        """The value of an extended attribute."""
        raise FsError(errno.ENODATA)

    def list_xattrs(self, node: Node) -> list[bytes]:
        """Names of extended attributes that copying tools should see."""
        return []

    def set_xattr(self, node: Node, name: bytes, value: bytes, flags: int) -> None:
        """Set an extended attribute."""
        raise FsError(errno.EROFS)

    def remove_xattr(self, node: Node, name: bytes) -> None:
        """Remove an extended attribute."""
        raise FsError(errno.EROFS)
