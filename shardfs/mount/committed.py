"""What lies below a commit: immutable directories, files and links."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from shardfs.errors import FsError
from shardfs.formats.ids import CommitId
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, TreeEntry
from shardfs.mount.magic import magic_xattr
from shardfs.mount.nodes import Attr, Handle, Named, Node, derived_ino, type_of
from shardfs.mount.plain import PlainHandle
from shardfs.mount.source import Content, Source
from shardfs.mount.view import View

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class Place(NamedTuple):
    """The key of a committed node: an entry and the commit that it was reached through."""

    commit: CommitId
    time_ns: int  # the commit's; shown as mtime
    entry: TreeEntry
    path: bytes = b""  # from the root of the commit


class ContentHandle(Handle):
    """An open committed file: it keeps its content whatever happens to names.

    The list of its chunks is loaded by the first read, not by open: a program that waits in read(2) for a remote can
    be killed, one that waits in open(2) cannot.
    """

    keep_cache = True

    def __init__(self, node: Node, open_content: Callable[[], Content], note: Callable[[int], None]) -> None:
        """Args: note: told how many bytes were asked for."""
        super().__init__(node)
        self._open_content = open_content
        self._note = note
        self._content: Content | None = None
        self._is_released = False
        self._guard = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        """Verified bytes; fewer than `size` only at the end."""
        self._note(size)
        return self._loaded().read_at(offset, size)

    def pieces(self, offset: int, size: int) -> Sequence[bytes | memoryview]:
        """Verified bytes in the pieces that they were stored in."""
        self._note(size)
        return self._loaded().pieces_at(offset, size)

    def is_ready(self, offset: int, size: int) -> bool:
        """Whether all chunks of the range are decoded."""
        content = self._content
        return content is not None and content.is_ready(offset, size)

    def release(self) -> None:
        """The order in which the file was read may be kept."""
        with self._guard:
            content, self._content, self._is_released = self._content, None, True
        if content is not None:
            content.close()

    def _loaded(self) -> Content:
        content = self._content
        if content is not None:
            return content
        # Two threads may both load it, and one of them so late that nobody waits for it any more: each is closed.
        content = self._open_content()
        with self._guard:
            if self._content is None and not self._is_released:
                self._content = content
                return content
        content.close()
        return content


class CommittedView(View):
    """Answers for everything below `commits/<id>`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def root(self, id_: CommitId) -> Node:
        """The directory of a commit.

        Raises:
            ObjectNotFoundError: there is no such commit.
        """
        commit = self._source.objects.commit(id_)
        return self._node(Place(id_, commit.time_us * 1000, DirEntry(b"", commit.tree)))

    def lookup(self, parent: Node, name: bytes) -> Node:
        """The entry `name` of a committed directory."""
        place: Place = parent.key
        if not isinstance(place.entry, DirEntry):
            raise FsError(errno.ENOTDIR)
        found = self._source.objects.tree(place.entry.tree).by_name.get(name)
        if found is None:
            raise FsError(errno.ENOENT)
        return self._node(_below(place, found))

    def entries(self, node: Node) -> Iterator[Named]:
        """The entries of a committed directory, sorted by name."""
        place: Place = node.key
        if not isinstance(place.entry, DirEntry):
            raise FsError(errno.ENOTDIR)
        for entry in self._source.objects.tree(place.entry.tree).entries:
            yield Named(entry.name, self._node(_below(place, entry)))

    def getattr(self, node: Node) -> Attr:
        """Attributes: read-only modes, the commit's time, one link per file."""
        time_ns, entry = node.key.time_ns, node.key.entry
        if isinstance(entry, FileEntry):
            mode = 0o555 if entry.executable else 0o444
            return Attr(node.ino, stat.S_IFREG | mode, entry.size, time_ns)
        if isinstance(entry, LinkEntry):
            return Attr(node.ino, stat.S_IFLNK | 0o777, len(entry.target), time_ns)
        # find(1) trusts the link count of directories: it stops looking for subdirectories after nlink - 2.
        inside = self._source.objects.tree(entry.tree).entries
        folders = sum(isinstance(e, DirEntry) for e in inside)
        return Attr(node.ino, stat.S_IFDIR | 0o555, 0, time_ns, nlink=2 + folders)

    def readlink(self, node: Node) -> bytes:
        """The target as it was committed."""
        entry = node.key.entry
        if not isinstance(entry, LinkEntry):
            raise FsError(errno.EINVAL)
        return entry.target

    def open(self, node: Node, flags: int) -> Handle:
        """Open for reading; anything else is EROFS."""
        if flags & WRITE_FLAGS:
            raise FsError(errno.EROFS)
        entry = node.key.entry
        if not isinstance(entry, FileEntry):
            raise FsError(errno.EISDIR if node.is_dir else errno.ELOOP)
        source = self._source
        note = partial(source.note_read, entry)
        content = ContentHandle(node, lambda: source.open_entry(entry, node.key.path), note)
        plain = source.plain_file(entry)
        return content if plain is None else PlainHandle(node, plain, entry.size, content)

    def get_xattr(self, node: Node, name: bytes) -> bytes:
        """The magic attributes of magic.py; there are no others."""
        place: Place = node.key
        return magic_xattr(self._source, name, place.entry, place.commit)

    def _node(self, place: Place) -> Node:
        return Node(self, derived_ino(place.entry), type_of(place.entry), place)


def _below(place: Place, entry: TreeEntry) -> Place:
    path = b"%s/%s" % (place.path, entry.name) if place.path else entry.name
    return Place(place.commit, place.time_ns, entry, path)
