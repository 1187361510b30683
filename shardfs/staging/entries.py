"""Files of a work tree as entries of a tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from shardfs.errors import FileChangedError
from shardfs.formats.tree import FileEntry, LinkEntry
from shardfs.staging.ingest import Ingest, Ingested
from shardfs.staging.scan import Found
from shardfs.staging.source import read_errors, shown
from shardfs.staging.statcache import StatCache

# Not blocking: a file that was swapped for a pipe must not hold us up; ingest then refuses it.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Staged(NamedTuple):
    """A file or link that is in the store: its path relative to the root, its entry, its time."""

    path: bytes
    entry: FileEntry | LinkEntry
    mtime_ns: int
    was_read: bool


def stage(root: Path, found: Iterable[Found], ingest: Ingest, cache: StatCache) -> Iterator[Staged]:
    """Put files of a work tree into the batch of `ingest`, reading only those that changed.

    Save the cache once the batch is published.

    Args:
        root: of the work tree.
        found: by `Scanner.scan`; directories among them are passed over.
        ingest: puts what has to be read.
        cache: knows what has not; learns what was read.

    Raises:
        FileChangedError: a file changed, or was replaced or removed, since it was found.
        StoreError: a file cannot be read, or the store not written.
    """
    base = os.fsencode(root)
    for path, status in found:
        name = path.rpartition(b"/")[2]
        mode = status.st_mode
        if stat.S_ISLNK(mode):
            with _still_there(path):
                target = os.readlink(os.path.join(base, path))  # noqa: PTH115, PTH118 - bytes
            yield Staged(path, LinkEntry(name, target), status.st_mtime_ns, was_read=False)
        elif stat.S_ISREG(mode):
            executable = bool(mode & stat.S_IXUSR)
            entry = cache.entry(path, status, executable=executable)
            if entry is not None:
                yield Staged(path, entry, status.st_mtime_ns, was_read=False)
                continue
            content = _read(base, path, ingest)
            cache.put(path, content)
            yield Staged(path, content.entry(name, executable=executable), content.stamp.mtime_ns, was_read=True)


def _read(base: bytes, path: bytes, ingest: Ingest) -> Ingested:
    with _still_there(path):
        fd = os.open(os.path.join(base, path), _OPEN_FILE)  # noqa: PTH118 - bytes
    try:
        return ingest.file(fd, path)
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
