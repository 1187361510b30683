"""What the tests of the staging area share: a store in memory, and commits of an area into it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shardfs.formats.ids import ChunkId, TreeId, chunk_id
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, Tree, TreeEntry
from shardfs.staging.area import Area
from shardfs.staging.layers import Layered
from shardfs.staging.nodes import PathKey
from shardfs.staging.snapshot import PrivateFile, Snapshot

# A whole tree as plain values: bytes for a file, str for a link, (bytes, True) for an executable, None for an
# empty directory.
Plain = bytes | str | tuple[bytes, bool] | None
Flat = dict[PathKey, Plain]


class Bytes:
    """Committed content in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, size: int, /) -> bytes:
        return self._data[offset : offset + size]

    def pieces_at(self, offset: int, size: int, /) -> list[bytes]:
        return [self.read_at(offset, size)]

    def is_ready(self, _offset: int, _size: int, /) -> bool:
        return True

    def close(self) -> None:
        pass


class MemoryStore:
    """Trees and contents by id; `loaded` counts which trees were asked for."""

    def __init__(self) -> None:
        self.trees: dict[TreeId, Tree] = {}
        self.contents: dict[ChunkId, bytes] = {}
        self.loaded: list[TreeId] = []

    def tree(self, tree_id: TreeId, /) -> Tree:
        self.loaded.append(tree_id)
        return self.trees[tree_id]

    def put_tree(self, tree: Tree) -> TreeId:
        self.trees[tree.id] = tree
        return tree.id

    def open_content(self, entry: FileEntry, /) -> Bytes:
        return Bytes(self.contents[entry.chunk] if entry.chunk is not None else b"")

    def file(self, name: bytes, data: bytes, *, executable: bool = False) -> FileEntry:
        if not data:
            return FileEntry(name, 0, executable)
        key = chunk_id(data)
        self.contents[key] = data
        return FileEntry(name, len(data), executable, key)

    def ingest(self, file: PrivateFile) -> FileEntry:
        fd = file.open()
        try:
            if file.below is None:
                return self.file(b"ignored", os.pread(fd, file.size, 0))
            both = Layered(fd, self.open_content(file.below.entry()), file.below.kept)
            return self.file(b"ignored", both.read_at(0, file.size))
        finally:
            os.close(fd)

    def put(self, flat: Mapping[PathKey, Plain]) -> TreeId:
        """Store a tree given by its leaves."""
        entries: list[TreeEntry] = []
        below: dict[bytes, Flat] = {}
        for path, value in flat.items():
            name, rest = path[0], path[1:]
            if rest:
                below.setdefault(name, {})[rest] = value
            elif value is None:
                below.setdefault(name, {})
            elif isinstance(value, str):
                entries.append(LinkEntry(name, value.encode()))
            elif isinstance(value, tuple):
                entries.append(self.file(name, value[0], executable=value[1]))
            else:
                entries.append(self.file(name, value))
        entries += [DirEntry(name, self.put(sub)) for name, sub in below.items()]
        return self.put_tree(Tree.of(entries))

    def flat(self, tree_id: TreeId) -> Flat:
        """The leaves of a stored tree."""
        found: Flat = {}
        for entry in self.trees[tree_id].entries:
            if isinstance(entry, DirEntry):
                sub = self.flat(entry.tree)
                found |= {(entry.name, *path): value for path, value in sub.items()} or {(entry.name,): None}
            elif isinstance(entry, LinkEntry):
                found[entry.name,] = entry.target.decode()
            else:
                data = self.open_content(entry).read_at(0, entry.size)
                found[entry.name,] = (data, True) if entry.executable else data
        return found

    def area(self, directory: Path, base: TreeId | None = None, *, session: bool = True) -> Area:
        """An open area over this store."""
        area = Area.open(directory, self, self.open_content, base, base_time_ns=1_000_000_000)
        if session:
            area.start_session("a test")
        return area

    def commit(self, area: Area) -> Flat:
        """Snapshot, build, mark; gives back what was committed."""
        with area.snapshot() as snapshot:
            tree_id = self.build(snapshot)
            area.mark_committed(snapshot, tree_id)
        return self.flat(tree_id)

    def build(self, snapshot: Snapshot) -> TreeId:
        return snapshot.build(self.ingest, self.put_tree)


def shown(area: Area, ino: int | None = None) -> Flat:
    """The leaves of what an area shows, unfinished writes included."""
    found: Flat = {}
    for node in area.list(area.root if ino is None else ino):
        if node.is_dir:
            sub = shown(area, node.ino)
            found |= {(node.name, *path): value for path, value in sub.items()} or {(node.name,): None}
        elif node.target is not None:
            found[node.name,] = node.target.decode()
        else:
            data = read(area, node.ino)
            found[node.name,] = (data, True) if node.mode & 0o100 else data
    return found


def read(area: Area, ino: int) -> bytes:
    """The content of a file."""
    file = area.open_file(ino, os.O_RDONLY)
    try:
        return file.read(0, 1 << 30)
    finally:
        file.release()


def write(area: Area, name: bytes, data: bytes, parent: int | None = None, mode: int = 0o644) -> int:
    """Make or overwrite a file as cp does; gives back its inode number."""
    file = area.create(area.root if parent is None else parent, name, mode, os.O_WRONLY)
    try:
        file.truncate(0)
        file.write(0, data)
    finally:
        file.flush()
        file.release()
    return file.ino


def rows(area: Area) -> int:
    """How many rows the area has, the root's not counted."""
    with area._database.read() as db:
        return int(db.execute("SELECT count(*) FROM nodes").fetchone()[0]) - 1


def files(area: Area) -> list[str]:
    """Names of private files on disk, once all is synced."""
    area.sync()
    return sorted(path.name for path in (area.directory / "files").iterdir())


def crash(area: Area) -> None:
    """Let go of an area as the kernel does for a killed process: no last words."""
    for node in area._opened._nodes.values():
        if node.fd is not None:
            os.close(node.fd)
    area._closing.close()
    area._session.release()
    area._database.close()
