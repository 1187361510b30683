"""The values of a staging area: rows of the database, what callers see of them, and their inode numbers."""

from __future__ import annotations

import errno
import secrets
import stat
from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from shardfs.discovery import STORE_NAME
from shardfs.errors import AreaError, MalformedError
from shardfs.formats.ids import ChunkId, ManifestId, TreeId
from shardfs.formats.tree import MAX_NAME_SIZE, DirEntry, FileEntry, LinkEntry, Tree, TreeEntry, check_name

ROOT: Final = 2  # inode number of the area's root directory; 0 and 1 mean "none" and "mount root" to kernels
_FIRST_INO: Final = 1 << 32  # numbers below stay free for the mount's own nodes
_INO_MASK: Final = (1 << 63) - 1  # SQLite and off_t are signed 64 bit

_RESERVED: Final = STORE_NAME.encode()

_CHUNK: Final = b"C"
_MANIFEST: Final = b"M"

PathKey = tuple[bytes, ...]  # names from the root down; () is the root itself


class NodeKind(IntEnum):
    """What a row is; the values are stored."""

    GONE = 0  # whiteout: hides an entry of the base tree
    DIR = 1
    FILE = 2
    LINK = 3


class Trees(Protocol):
    """Where trees come from."""

    def tree(self, tree_id: TreeId, /) -> Tree:
        """The tree of that id; raises errors of the integrity and remote families."""
        ...


class Content(Protocol):
    """Random access to the content of a committed file."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        ...


class NamesContent(Protocol):
    """What names the content of a file: a chunk, a manifest, or neither when it is empty."""

    @property
    def chunk(self) -> ChunkId | None:
        """The chunk that holds all of it."""
        ...

    @property
    def manifest(self) -> ManifestId | None:
        """Its manifest."""
        ...


class OpenContent(Protocol):
    """How committed files are opened."""

    def __call__(self, entry: FileEntry, /) -> Content:
        """Random access to the content of `entry`."""
        ...


class Row(NamedTuple):
    """One row of the table `nodes`, in the order of its columns."""

    ino: int
    parent: int
    name: bytes
    kind: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    size: int
    content: bytes | None
    base: bytes | None
    target: bytes | None
    gen: int | None
    wgen: int | None
    last_gen: int
    version: int
    settled: int
    stray: int
    below: bytes | None = None
    live: int = 0

    @property
    def executable(self) -> bool:
        """Whether the owner may execute it: the one mode bit that commits keep."""
        return bool(self.mode & stat.S_IXUSR)

    @property
    def stable(self) -> bool:
        """Whether the row names content that a commit may take (a new file has none until it is closed)."""
        return self.kind != NodeKind.FILE or self.gen is not None or self.content is not None

    def entry(self) -> TreeEntry | None:
        """The row as an entry of a tree; None for whiteouts, private files and directories without a base."""
        if self.kind == NodeKind.DIR:
            return DirEntry(self.name, TreeId(self.base)) if self.base is not None else None
        if self.kind == NodeKind.LINK:
            return LinkEntry(self.name, self.target or b"")
        if self.kind == NodeKind.FILE and self.gen is None and self.content is not None:
            return file_entry(self.name, self.size, self.executable, self.content)
        return None


class NodeStat(NamedTuple):
    """What the area knows about one file, directory or link. Times are nanoseconds since 1970."""

    ino: int
    parent: int
    name: bytes
    kind: NodeKind
    mode: int  # with the file type, as st_mode
    size: int  # bytes; of a link the length of its target; 0 for directories
    mtime_ns: int
    ctime_ns: int
    entry: TreeEntry | None  # content by reference; None when the bytes are a private file or the directory is new
    target: bytes | None = None  # of a link

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.kind is NodeKind.DIR


# By value of NodeKind: calling the enum costs 2 us, which counts in a listing of 100 000 entries.
_KINDS: Final = (NodeKind.GONE, NodeKind.DIR, NodeKind.FILE, NodeKind.LINK)
_TYPES: Final = (0, stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)


def stat_of_row(row: Row) -> NodeStat:
    """What callers see of a row that is not a whiteout.

    Raises:
        AreaError: EIO for a kind that does not exist, which only a flipped bit makes.
    """
    if not 0 <= row.kind < len(_KINDS):
        raise AreaError(errno.EIO, "area.sqlite")
    return NodeStat(
        row.ino,
        row.parent,
        row.name,
        _KINDS[row.kind],
        row.mode | _TYPES[row.kind],
        row.size,
        row.mtime_ns,
        row.ctime_ns,
        row.entry(),
        row.target,
    )


def stat_of_entry(ino: int, parent: int, entry: TreeEntry, time_ns: int) -> NodeStat:
    """What callers see of an entry of the base tree that has no row."""
    name = entry.name
    if type(entry) is FileEntry:
        mode = stat.S_IFREG | (0o755 if entry.executable else 0o644)
        return NodeStat(ino, parent, name, NodeKind.FILE, mode, entry.size, time_ns, time_ns, entry)
    if type(entry) is LinkEntry:
        size = len(entry.target)
        mode = stat.S_IFLNK | 0o777
        return NodeStat(ino, parent, name, NodeKind.LINK, mode, size, time_ns, time_ns, entry, entry.target)
    return NodeStat(ino, parent, name, NodeKind.DIR, stat.S_IFDIR | 0o755, 0, time_ns, time_ns, entry)


def row_of_entry(ino: int, parent: int, entry: TreeEntry, time_ns: int) -> Row:
    """A row that says the same as an entry of a tree; version 0 marks that it is not stored."""
    return _row(ino, parent, entry, (time_ns, time_ns), version=0, settled=1)


def added_row(ino: int, parent: int, entry: TreeEntry, times_ns: tuple[int, int], version: int) -> Row:
    """A row of a new node with the content of an entry, and with its mtime and ctime."""
    return _row(ino, parent, entry, times_ns, version=version, settled=0)


def _row(ino: int, parent: int, entry: TreeEntry, times_ns: tuple[int, int], *, version: int, settled: int) -> Row:
    content = base = target = None
    size = 0
    if isinstance(entry, FileEntry):
        kind, mode, size, content = NodeKind.FILE, 0o755 if entry.executable else 0o644, entry.size, content_key(entry)
    elif isinstance(entry, LinkEntry):
        kind, mode, size, target = NodeKind.LINK, 0o777, len(entry.target), entry.target
    else:
        kind, mode, base = NodeKind.DIR, 0o755, bytes(entry.tree)
    place = (ino, parent, entry.name, kind, mode, *times_ns)
    return Row(*place, size, content, base, target, None, None, 0, version, settled, 0)


def new_row(parent: int, name: bytes, kind: NodeKind, mode: int, time_ns: int) -> Row:
    """A row of a new node with a fresh inode number and no content yet."""
    version = new_version()
    return Row(new_ino(), parent, name, kind, mode, time_ns, time_ns, 0, None, None, None, None, None, 0, version, 0, 0)


def gone_row(parent: int, name: bytes) -> Row:
    """A whiteout."""
    return new_row(parent, name, NodeKind.GONE, 0, 0)


def content_key(entry: NamesContent) -> bytes:
    """The content of a file as the column `content` holds it; b"" means empty."""
    if entry.manifest is not None:
        return _MANIFEST + entry.manifest
    return _CHUNK + entry.chunk if entry.chunk is not None else b""


def file_entry(name: bytes, size: int, executable: bool, content: bytes) -> FileEntry:
    """The file entry that the columns describe: the reverse of `content_key`."""
    chunk = ChunkId(content[1:]) if content[:1] == _CHUNK else None
    manifest = ManifestId(content[1:]) if content[:1] == _MANIFEST else None
    return FileEntry(name, size, executable, chunk, manifest)


def same_as_entry(row: Row, entry: TreeEntry | None) -> bool:
    """Whether a row adds nothing to the entry of the base tree that it hides (modes and times do not count)."""
    if row.kind == NodeKind.GONE:
        return entry is None
    if row.kind == NodeKind.DIR:
        return isinstance(entry, DirEntry) and entry.tree == row.base
    if isinstance(entry, FileEntry):  # as `row.entry() == entry`, at half the time
        stable = row.wgen is None and row.gen is None and row.content is not None
        same = stable and row.size == entry.size and row.executable == entry.executable
        return same and row.kind == NodeKind.FILE and row.content == content_key(entry)
    return row.wgen is None and entry is not None and row.entry() == entry


def new_ino() -> int:
    """A fresh random inode number."""
    return _FIRST_INO | (secrets.randbits(63) & _INO_MASK)


def new_inos(count: int) -> range:
    """As many fresh inode numbers that follow each other: rows in their order are stored twice as fast."""
    first = _FIRST_INO | secrets.randbits(62)
    return range(first, first + count)


def new_version() -> int:
    """A first version that no earlier row of the same inode number has had, so that equal means the same content."""
    return secrets.randbits(40) + 1 << 20


def derived_ino(parent: int, name: bytes, salt: int = 0) -> int:
    """The stable inode number of an entry of the base tree: the same in every process and after every restart."""
    digest = blake2b(name, digest_size=8, key=(parent << 8 | salt).to_bytes(10, "little")).digest()
    return _FIRST_INO | (int.from_bytes(digest, "little") & _INO_MASK)


def is_derived(ino: int, parent: int, name: bytes) -> bool:
    """Whether an entry of the base tree at that place would have that number."""
    return any(ino == derived_ino(parent, name, salt) for salt in range(3))


def checked_name(name: bytes) -> bytes:
    """`name` if a new entry can have it.

    Raises:
        AreaError: EPERM for the name of repositories, ENAMETOOLONG, or EINVAL for anything else that is no name.
    """
    if name == _RESERVED:  # its content would be written over the repository of whoever checks it out
        raise AreaError(errno.EPERM, name)
    try:
        return check_name(name)
    except MalformedError:
        raise AreaError(errno.ENAMETOOLONG if len(name) > MAX_NAME_SIZE else errno.EINVAL, name) from None
