"""A snapshot of the area: all that a commit needs, from one moment, while writers go on.

Only stable content is in it. Generation files that it names are not deleted while it is open, even when newer ones
take their place, and their first `size` bytes never change.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from shardfs.errors import AreaError, FileChangedError
from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry, FileEntry, Tree, TreeEntry
from shardfs.staging.changes import Overlay, StagedChange, changes
from shardfs.staging.layers import Below
from shardfs.staging.nodes import ROOT, NodeKind, PathKey, Row
from shardfs.staging.view import View


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A file whose bytes are in the area and must be ingested: the first `size` bytes of `file`.

    Where committed content lies `below` and shows, its bytes count, not those of `file`. A `live` one is whole and was
    fsynced, but a program that has it open may write to it at any time: whoever reads it checks that none did.
    """

    path: PathKey
    file: Path
    size: int
    executable: bool
    mtime_ns: int
    below: Below | None = None
    live: bool = False

    def open(self) -> int:
        """A descriptor for reading; the caller closes it. The file may be longer than `size`.

        Raises:
            AreaError: EIO when it is shorter (a power cut before anything was synced), ENOENT when it is missing.
            FileChangedError: it is live, and something was written since the fsync.
        """
        try:
            fd = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise AreaError(error.errno or errno.EIO, b"/".join(self.path)) from error
        try:
            self._check(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, fd: int) -> None:
        if self.live:
            os.fsync(fd)  # from now on a write into a shared mapping is noted in the times of the file
        found = os.fstat(fd)
        if self.live and (found.st_size, found.st_mtime_ns) != (self.size, self.mtime_ns):
            raise self.changed()
        if found.st_size < self.size:
            raise AreaError(errno.EIO, b"/".join(self.path))

    def changed(self) -> FileChangedError:
        """What to raise when its content is not what it was."""
        msg = f"{os.fsdecode(b'/'.join(self.path))} changed while it was read"
        return FileChangedError(msg)


class Snapshot:
    """See the module. Close it, or use it as context manager; build() may run once."""

    def __init__(
        self, overlay: Overlay, view: View, path_of: Callable[[tuple[int, int]], Path], close: Callable[[], None]
    ) -> None:
        self._overlay = overlay
        self._view = view
        self._close: Callable[[], None] | None = close
        self._order = overlay.post_order()
        self._private: dict[int, PrivateFile] = {}
        for path, directory in self._order:
            for row in overlay.children(directory.ino):
                if row.kind == NodeKind.FILE and row.gen is not None:
                    self._private[row.ino] = PrivateFile(
                        (*path, row.name),
                        path_of((row.ino, row.gen)),
                        row.size,
                        row.executable,
                        row.mtime_ns,
                        None if row.below is None else Below.from_bytes(row.below),
                        bool(row.live),
                    )
        self.built: dict[int, TreeId] = {}
        self.ingested: dict[int, tuple[int, FileEntry]] = {}
        self.left_out: list[PathKey] = []  # live files that were written to since their fsync

    @property
    def base(self) -> TreeId | None:
        """The committed tree that the snapshot is relative to."""
        base = self._overlay.dirs[ROOT].base
        return None if base is None else TreeId(base)

    @property
    def unchanged(self) -> bool:
        """Whether it is certain, without building, that the tree is the base."""
        return self.base is not None and not self._overlay.rows

    @property
    def files(self) -> list[PrivateFile]:
        """What must be ingested, sorted by path."""
        return sorted(self._private.values(), key=lambda file: file.path)

    def changes(self) -> Iterator[StagedChange]:
        """Paths that differ from the base, as `Area.changes`."""
        return changes(self._overlay, self._view)

    def build(self, ingest: Callable[[PrivateFile], FileEntry], put_tree: Callable[[Tree], TreeId]) -> TreeId:
        """Ingest private files and write the trees of all changed directories, deepest first.

        Args:
            ingest: stores the content; its answer's name and executable bit are ignored.
            put_tree: stores a tree. Called for changed directories only; unchanged subtrees are not even loaded.

        Returns:
            The tree of the root.

        Raises:
            FileChangedError: from `ingest`, or it answered another size than it was given. Not for live files: they
                stay as they are in the base, and `left_out` has them.
        """
        for _, directory in self._order:
            entries = dict(self._view.tree(directory.base).by_name)
            for row in sorted(self._overlay.children(directory.ino), key=lambda row: row.name):
                entry = self._entry(row, ingest, entries.get(row.name))
                if entry is None:
                    entries.pop(row.name, None)
                else:
                    entries[row.name] = entry
            self.built[directory.ino] = put_tree(Tree.of(list(entries.values())))
        return self.built[ROOT]

    def close(self) -> None:
        """Let go of the generation files; again is harmless."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(
        self, row: Row, ingest: Callable[[PrivateFile], FileEntry], before: TreeEntry | None
    ) -> TreeEntry | None:
        if row.kind == NodeKind.DIR and row.ino in self.built:
            return DirEntry(row.name, self.built[row.ino])
        private = self._private.get(row.ino)
        if private is None:
            return row.entry() if row.stable else None
        try:
            entry = ingest(private)
            if entry.size != private.size:
                raise private.changed()
        except FileChangedError:
            if not private.live:
                raise
            self.left_out.append(private.path)
            return before
        entry = replace(entry, name=row.name, executable=row.executable)
        self.ingested[row.ino] = (row.version, entry)
        return entry
