"""The staging area of one branch: a mutable tree over the tree of the branch's tip.

Design, durability rules and crash states: docs/design/staging.md. Everything here can be called from many threads
at once, and several processes can have the same area open. Errors are `AreaError` with an errno, plus whatever
`trees` and `open_content` raise when committed content cannot be had.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from shardfs.formats.ids import Kind, TreeId
from shardfs.formats.tree import TreeEntry
from shardfs.staging.nodes import ROOT, NodeStat, OpenContent, PathKey, Trees

RENAME_NOREPLACE = 1  # value of Linux' renameat2


class AreaFile:
    """An open file of an area. Share it between threads as you like; release() it once."""

    ino: int

    def stat(self) -> NodeStat:
        """Attributes as of now, also of a file that was unlinked since."""
        raise NotImplementedError

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`, fewer only at the end. Sees unfinished writes of all handles."""
        raise NotImplementedError

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data` at `offset` (at the end when opened with O_APPEND); returns len(data).

        Raises:
            AreaError: EBADF when not opened for writing, ENOSPC and what else the disk says.
        """
        raise NotImplementedError

    def truncate(self, size: int) -> None:
        """Cut to, or extend with zeros to, `size` bytes."""
        raise NotImplementedError

    def utimens(self, mtime_ns: int) -> None:
        """Set the modification time, also of a file that was unlinked since."""
        raise NotImplementedError

    def flush(self) -> None:
        """A descriptor was closed (FUSE flush). Commits wait shortly for the release that follows."""
        raise NotImplementedError

    def fsync(self) -> None:
        """Make content and metadata durable; what was written so far is what commits take from now on."""
        raise NotImplementedError

    def release(self) -> None:
        """Close. The last release of a handle that can write makes the content what commits take."""
        raise NotImplementedError


class Area:
    """The staging area of one branch. See the module."""

    root = ROOT

    @classmethod
    def open(
        cls,
        directory: Path,
        trees: Trees,
        open_content: OpenContent,
        base: TreeId | None = None,
        base_time_ns: int = 0,
    ) -> Area:
        """Open the area in `directory`; a new one starts at the tree `base`.

        An area that exists keeps its own base: compare `area.base` with the branch's tip and `rebase`.
        What a killed process left unfinished is put in order first, unless a live session owns it.

        Args:
            directory: made when missing.
            trees: source of committed trees.
            open_content: source of committed file contents.
            base: tree of the branch's tip, None before the first commit.
            base_time_ns: modification time that unchanged entries show (the commit's time).
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the session, if any, and close the database. Open files should be released before."""
        raise NotImplementedError

    @property
    def base(self) -> TreeId | None:
        """The committed tree that changes are relative to."""
        raise NotImplementedError

    def start_session(self, who: str) -> None:
        """Become the one process that may write through handles (create, mknod, open for writing, truncate).

        Raises:
            LockedError: another process is; the message says which.
        """
        raise NotImplementedError

    # Looking

    def lookup(self, parent: int, name: bytes) -> NodeStat:
        """The entry `name` of a directory (ENOENT, ENOTDIR)."""
        raise NotImplementedError

    def find(self, path: PathKey) -> NodeStat:
        """The node at a path from the root (ENOENT, ENOTDIR)."""
        raise NotImplementedError

    def stat(self, ino: int) -> NodeStat:
        """A node by inode number, which lookup, find or list of this object gave (ENOENT)."""
        raise NotImplementedError

    def list(self, ino: int) -> list[NodeStat]:
        """The entries of a directory, in no order, without "." and ".." (ENOENT, ENOTDIR)."""
        raise NotImplementedError

    def readlink(self, ino: int) -> bytes:
        """The target of a link (EINVAL when it is none)."""
        raise NotImplementedError

    # Changing

    def create(self, parent: int, name: bytes, mode: int, flags: int = os.O_RDWR) -> AreaFile:
        """Make a file and open it. With O_EXCL in `flags` an existing one is EEXIST, else it is opened.

        Commits take a new file from its first release or fsync on.
        """
        raise NotImplementedError

    def mknod(self, parent: int, name: bytes, mode: int) -> NodeStat:
        """Make an empty file without opening it."""
        raise NotImplementedError

    def mkdir(self, parent: int, name: bytes, mode: int) -> NodeStat:
        """Make a directory."""
        raise NotImplementedError

    def symlink(self, parent: int, name: bytes, target: bytes) -> NodeStat:
        """Make a symbolic link."""
        raise NotImplementedError

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file or link; open handles keep working (ENOENT, EISDIR)."""
        raise NotImplementedError

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory (ENOENT, ENOTDIR, ENOTEMPTY)."""
        raise NotImplementedError

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """Move an entry, over an existing one unless RENAME_NOREPLACE (EEXIST, EINVAL, ENOTEMPTY ...)."""
        raise NotImplementedError

    def chmod(self, ino: int, mode: int) -> NodeStat:
        """Set the permission bits (0o7777). Commits keep only whether the owner may execute."""
        raise NotImplementedError

    def utimens(self, ino: int, mtime_ns: int) -> NodeStat:
        """Set the modification time."""
        raise NotImplementedError

    def truncate(self, ino: int, size: int) -> None:
        """Cut or extend a file by inode number: open, truncate, release."""
        raise NotImplementedError

    def open_file(self, ino: int, flags: int) -> AreaFile:
        """Open a file: access mode, O_TRUNC and O_APPEND of `flags` count (ENOENT, EISDIR, ELOOP for links)."""
        raise NotImplementedError

    def sync(self, ino: int) -> None:
        """Make all metadata operations so far durable (fsync of a directory)."""
        raise NotImplementedError

    # Extended attributes: kept in the area, never committed

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        """The value of an attribute (ENODATA)."""
        raise NotImplementedError

    def set_xattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an attribute; `flags` 1 = must not exist (EEXIST), 2 = must exist (ENODATA)."""
        raise NotImplementedError

    def list_xattrs(self, ino: int) -> list[bytes]:
        """Names of the attributes, sorted."""
        raise NotImplementedError

    def remove_xattr(self, ino: int, name: bytes) -> None:
        """Remove an attribute (ENODATA)."""
        raise NotImplementedError

    # The command line's door

    def put_entry(self, path: PathKey, entry: TreeEntry, mtime_ns: int | None = None) -> None:
        """Put committed content at a path, in place of what is there; missing parents are made.

        `entry.name` is ignored in favour of the path's last name. A parent that is a file is replaced.
        """
        raise NotImplementedError

    def put_entries(self, items: Iterable[tuple[PathKey, TreeEntry, int | None]]) -> None:
        """Many `put_entry` in few transactions."""
        raise NotImplementedError

    def remove(self, path: PathKey) -> None:
        """Remove a file, a link or a whole directory (ENOENT)."""
        raise NotImplementedError

    def references(self) -> Iterator[tuple[Kind, bytes]]:
        """Every chunk, manifest and tree that the area needs, for garbage collection."""
        raise NotImplementedError
