"""Files of a work tree as entries of a tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from shardfs.errors import FileChangedError
from shardfs.formats.tree import FileEntry, LinkEntry
from shardfs.staging.ingest import Ingest, Ingested
from shardfs.staging.scan import Found
from shardfs.staging.smallfiles import MANY, OPEN_FILE, SmallFiles
from shardfs.staging.source import read_errors, shown
from shardfs.staging.statcache import StatCache


class Staged(NamedTuple):
    """A file or link that is in the store: its path relative to the root, its entry, its time."""

    path: bytes
    entry: FileEntry | LinkEntry
    mtime_ns: int
    was_read: bool


class Staging:
    """Puts files of a work tree into a batch, reading only those that changed. For one thread."""

    def __init__(self, root: bytes, small: SmallFiles, ingest: Ingest, cache: StatCache) -> None:
        """Put files below `root`. Save the cache once the batch is published.

        Args:
            root: of the work tree.
            small: puts small files that have to be read.
            ingest: puts all others.
            cache: knows what has not to be read; learns what was read.
        """
        self._root = root
        self._small = small
        self._ingest = ingest
        self._cache = cache

    def stage(self, found: Iterable[Found]) -> Iterator[Staged]:
        """The entries of files and links that `Scanner.scan` found, in the same order.

        Raises:
            FileChangedError: a file changed, or was replaced or removed, since it was found.
            StoreError: a file cannot be read, or the store not written.
        """
        rest = iter(found)
        while files := list(islice(rest, MANY)):
            known = [self._known(path, status) for path, status in files]
            unknown = [each for each, staged in zip(files, known, strict=True) if staged is None]
            contents = iter(self._small.put(unknown))
            for each, staged in zip(files, known, strict=True):
                yield self._read(each, next(contents)) if staged is None else staged

    def _known(self, path: bytes, status: os.stat_result) -> Staged | None:
        """A link, or a file whose content is known."""
        entry: FileEntry | LinkEntry | None
        if stat.S_ISLNK(status.st_mode):
            with _still_there(path):
                target = os.readlink(os.path.join(self._root, path))  # noqa: PTH115, PTH118 - bytes
            entry = LinkEntry(path.rpartition(b"/")[2], target)
        else:
            entry = self._cache.entry(path, status, executable=bool(status.st_mode & stat.S_IXUSR))
        return None if entry is None else Staged(path, entry, status.st_mtime_ns, was_read=False)

    def _read(self, found: Found, content: Ingested | None) -> Staged:
        path, status = found
        if content is None:
            content = self._ingest_one(path)
        self._cache.put(path, content)
        entry = content.entry(path.rpartition(b"/")[2], executable=bool(status.st_mode & stat.S_IXUSR))
        return Staged(path, entry, content.stamp.mtime_ns, was_read=True)

    def _ingest_one(self, path: bytes) -> Ingested:
        with _still_there(path):
            fd = os.open(os.path.join(self._root, path), OPEN_FILE)  # noqa: PTH118 - bytes
        try:
            return self._ingest.file(fd, path)
        finally:
            os.close(fd)


@contextmanager
def _still_there(path: bytes) -> Iterator[None]:
    """Turn the absence of a file that was there into a FileChangedError, other failures into a StoreError."""
    with read_errors(path):
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            msg = f"{shown(path)} was removed or replaced while files were added"
            raise FileChangedError(msg) from error
