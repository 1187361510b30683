"""Which files of a work tree hold what staging or a commit says they hold."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shardfs.errors import AreaError
from shardfs.formats.ids import TreeId, chunk_id
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, TreeEntry
from shardfs.history import paths
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.staging.area import Area
from shardfs.staging.nodes import NodeKind, NodeStat, content_key
from shardfs.staging.statcache import StatCache


class Listing:
    """What an area holds, looked up directory by directory: a work tree of 100 000 files asks for few of them."""

    def __init__(self, area: Area) -> None:
        self._area = area
        self._changed: frozenset[int] | None = None
        self._folders: dict[bytes, dict[bytes, NodeStat]] = {}

    def at(self, path: bytes) -> NodeStat | None:
        """The node at a path relative to the root, or None."""
        folder, _, name = path.rpartition(b"/")
        if folder not in self._folders:
            self._folders[folder] = self._load(folder)
        return self._folders[folder].get(name)

    def folder(self, path: bytes) -> dict[bytes, NodeStat]:
        """The nodes in a directory by name; empty when there is none."""
        if path not in self._folders:
            self._folders[path] = self._load(path)
        return self._folders[path]

    def tree(self, path: bytes) -> TreeId | None:
        """The committed tree that a directory shows; None when something in or below it is changed, or it is none."""
        if self._changed is None:
            self._changed = self._area.changed_directories()
        if not path:
            return self._area.base if self._area.root not in self._changed else None
        node = self.at(path)
        if node is None or not isinstance(node.entry, DirEntry) or node.ino in self._changed:
            return None
        return node.entry.tree

    def _load(self, folder: bytes) -> dict[bytes, NodeStat]:
        try:
            node = self._area.find(tuple(folder.split(b"/")) if folder else ())
            return {entry.name: entry for entry in self._area.list(node.ino)}
        except AreaError:
            return {}


class Comparer:
    """Compares files with entries: by stat when the cache knows the file, by reading it else."""

    def __init__(self, root: Path, objects: Objects, cache: StatCache) -> None:
        self._root = os.fsencode(root)
        self._objects = objects
        self._cache = cache

    def is_stored(self, path: bytes, status: os.stat_result) -> bool:
        """Whether the content of a file is known to be in the store, without reading it."""
        return stat.S_ISREG(status.st_mode) and self._cache.key(path, status) is not None

    def same(self, path: bytes, status: os.stat_result, entry: TreeEntry | None) -> bool:
        """Whether the file or link at `path` is what `entry` says, the executable bit included."""
        if isinstance(entry, LinkEntry):
            return stat.S_ISLNK(status.st_mode) and self._target(path) == entry.target
        if not isinstance(entry, FileEntry) or not stat.S_ISREG(status.st_mode):
            return False
        if bool(status.st_mode & stat.S_IXUSR) != entry.executable or status.st_size != entry.size:
            return False
        known = self._cache.key(path, status)
        return known == content_key(entry) if known is not None else self._equal_bytes(path, entry)

    def _target(self, path: bytes) -> bytes:
        return os.readlink(os.path.join(self._root, path))  # noqa: PTH115, PTH118 - names are bytes

    def _equal_bytes(self, path: bytes, entry: FileEntry) -> bool:
        try:
            with open(os.path.join(self._root, path), "rb", buffering=0) as file:  # noqa: PTH118, PTH123 - bytes
                return all(
                    chunk_id(_read_exactly(file.fileno(), chunk.size)) == chunk.id
                    for chunk in manifest_of(entry, self._objects).chunks
                )
        except OSError:
            return False


def place_of(root: Path, path: paths.Path) -> Path:
    """Where a path of a tree is in a work tree."""
    return Path(root, *(os.fsdecode(name) for name in path))


def is_tracked(node: NodeStat | None) -> bool:
    """Whether a node is a file or link of staging."""
    return node is not None and node.kind is not NodeKind.DIR


def _read_exactly(fd: int, size: int) -> bytes:
    parts = []
    while size and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
