"""What the vfs hands out: nodes, attributes, open files, and the inode numbers of what lies below commits."""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shardfs.errors import FsError
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, TreeEntry

if TYPE_CHECKING:
    from shardfs.mount.view import View

ROOT_INO: Final = 1
# 2 is the root of the staging area (staging/nodes.py), whose other numbers are above 2**32 with bit 32 set.
LATEST_INO: Final = 3
VERSIONS_INO: Final = 4
BRANCHES_INO: Final = 5
TAGS_INO: Final = 6
COMMITS_INO: Final = 7
CONTROL_INO: Final = 8
FIRST_CONTROL_FILE_INO: Final = 9

_STAGING_BIT: Final = 1 << 32  # set in every number of an area, never in a derived one
_HIGH_BIT: Final = 1 << 33  # keeps derived numbers above the fixed ones
_INO_MASK: Final = (1 << 63) - 1  # numbers stay positive as signed 64 bit integers
_BLOCK: Final = 512  # unit of st_blocks


@dataclass(frozen=True, slots=True)
class Node:
    """One file, directory or link. Two nodes with the same `ino` have the same content.

    Attributes:
        view: the part of the mount that answers for it.
        ino: inode number.
        type: S_IFDIR, S_IFREG or S_IFLNK.
        key: what the view finds it by.
    """

    view: View
    ino: int
    type: int
    key: Any = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.type == stat.S_IFDIR

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return self.type == stat.S_IFLNK


class Attr(NamedTuple):
    """Attributes. Times are nanoseconds since 1970; the owner is whoever mounted."""

    ino: int
    mode: int  # with the file type
    size: int
    mtime_ns: int
    nlink: int = 1
    ctime_ns: int | None = None  # None: as mtime_ns

    @property
    def blocks(self) -> int:
        """Units of 512 bytes that the content takes when it is copied out.

        Fewer, for compressed content, would make tar and cp look for holes that are not there.
        """
        return -(-self.size // _BLOCK)


class Named(NamedTuple):
    """One entry of a directory."""

    name: bytes
    node: Node
    attr: Attr | None = None  # when the view has it at hand


class Handle:
    """An open file. Safe to share between threads; release() it once.

    Attributes:
        node: what was opened.
        keep_cache: pages that the kernel has of this file are still good.
        direct_io: the size is not known before reading.
    """

    keep_cache = False
    direct_io = False

    def __init__(self, node: Node) -> None:
        self.node = node

    def getattr(self) -> Attr:
        """Attributes as of now."""
        return self.node.view.getattr(self.node)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        raise FsError(errno.EBADF)

    def pieces(self, offset: int, size: int) -> Sequence[bytes | memoryview]:
        """As `read`, in pieces as they lie in memory."""
        return (self.read(offset, size),)

    def is_ready(self, offset: int, size: int) -> bool:
        """Whether a read of the range takes no longer than to copy it."""
        return False

    def shares(self, other: Handle) -> bool:
        """Whether this and another open file of the same node have one content, whatever is written to either."""
        return True

    def backing(self) -> int | None:
        """A descriptor of a plain file with exactly this content, for the kernel to read and write itself.

        It belongs to the handle and stays open until its release. Writing through the handle must not be refused for
        other reasons than those of the plain file's disk. While one handle of a node has given a descriptor, further
        ones of the same node may be served by it, too.
        """
        return None

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write all of `data`; returns its length."""
        raise FsError(errno.EBADF)

    def truncate(self, size: int) -> None:
        """Cut or extend."""
        raise FsError(errno.EINVAL)

    def utimens(self, mtime_ns: int) -> None:
        """Set the modification time."""
        raise FsError(errno.EROFS)

    def flush(self) -> None:
        """A descriptor was closed; errors become the result of close()."""

    def fsync(self) -> None:
        """Make what was written durable."""

    def release(self) -> None:
        """The last descriptor and mapping is gone."""


def content_key(entry: TreeEntry) -> bytes:
    """What tells contents apart: the same bytes for the same content in every commit, path and process.

    The executable bit of a file is part of it, because it is part of an inode.
    """
    if isinstance(entry, FileEntry):
        key = b"x" if entry.executable else b"f"
        return key + (b"m" + entry.manifest if entry.manifest is not None else b"c" + (entry.chunk or b""))
    return b"d" + entry.tree if isinstance(entry, DirEntry) else b"l" + entry.target


def derived_ino(entry: TreeEntry) -> int:
    """The inode number of committed content, made from its `content_key`."""
    return hashed_ino(content_key(entry))


def hashed_ino(key: bytes) -> int:
    """An inode number for anything that is told apart by bytes."""
    number = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
    return (number & _INO_MASK & ~_STAGING_BIT) | _HIGH_BIT


def type_of(entry: TreeEntry) -> int:
    """The file type of an entry of a tree."""
    if isinstance(entry, FileEntry):
        return stat.S_IFREG
    return stat.S_IFLNK if isinstance(entry, LinkEntry) else stat.S_IFDIR
