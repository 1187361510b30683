"""Open files: unfinished writes, and the moments at which they become stable.

One `OpenNode` per open inode holds what all handles share. Bytes are written to a generation file. Where the row's
stable content ends, appends go in place; anything that would change a stable byte starts a new generation first.
`seal` (last release of a writer, or fsync) points the row at what was written, in one transaction.

Lock order: the node's lock, then the database's writer. Reads take no lock: `dup2` swaps the file below a
descriptor atomically, so that a reader finds the old generation or the new one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from shardfs.errors import AreaError
from shardfs.formats.tree import FileEntry
from shardfs.staging import closings
from shardfs.staging.closings import Closing
from shardfs.staging.database import Database, row_at, update
from shardfs.staging.durability import Durability
from shardfs.staging.generations import FileKey, Generations, copy_content, copy_file, write_all
from shardfs.staging.layers import Below, Layered
from shardfs.staging.locks import ClosingLock
from shardfs.staging.namespace import stored
from shardfs.staging.nodes import Content, NodeStat, OpenContent, Row, content_key, stat_of_row
from shardfs.staging.ranges import Ranges
from shardfs.staging.view import View

LAYERED_FROM = 1 << 20
"""Bytes of committed content from which a change leaves it where it is. Less is copied in a few milliseconds, and a
file that is whole is read, committed and mapped at the least cost."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What open files need of their area."""

    database: Database
    view: View
    files: Generations
    durability: Durability
    closing: ClosingLock
    open_content: OpenContent


class OpenNode:
    """The shared state of all handles of one inode. `lock` guards everything but reads."""

    def __init__(self, around: Surroundings, row: Row) -> None:
        """Open the stable content of `row`; raises FileNotFoundError's AreaError when it was just replaced."""
        self.around = around
        self.row = row  # as last seen; what stat shows after an unlink
        self.lock = threading.RLock()
        self._descriptor = threading.Lock()  # held while `fd` is measured or closed
        self.handles = 0
        self.writers = 0
        self.gone = False
        self.size = row.size
        self.mtime_ns = row.mtime_ns
        self.wgen: int | None = None  # generation with unfinished writes
        self.stable: FileKey | None = None
        self.stable_size = row.size
        self.fd: int | None = None
        self.live = False  # the kernel may write to the generation itself: size and time are those of the file
        self._content: Content | None = None
        self._entry: FileEntry | None = None  # committed content: all that there is, or what lies below
        self._kept: Ranges | None = None  # what shows of the content below; None: there is none
        entry = row.entry()
        if row.gen is not None:
            self.stable = (row.ino, row.gen)
            if row.below is not None:
                below = Below.from_bytes(row.below)
                below.kept.remove(row.size)
                self._entry, self._kept = below.entry(row.name), below.kept
            self.fd = around.files.open(self.stable)
        elif isinstance(entry, FileEntry) and entry.size:
            self._entry = entry

    @classmethod
    def fresh(cls, around: Surroundings, row: Row) -> OpenNode:
        """The node of a file that was just made with an unfinished generation."""
        node = cls(around, row)
        node.wgen = row.wgen
        return node

    def same_content(self, row: Row) -> bool:
        """Whether a new handle on `row` can share this node."""
        if self.gone:
            return False
        if self.wgen is not None:
            return row.wgen == self.wgen
        mine = self.row
        if row.version and row.version == mine.version:  # a commit made a reference of it: the same content
            return row.size == mine.size
        return (row.gen, row.content, row.size) == (mine.gen, mine.content, mine.size)

    def stat(self, row: Row | None = None) -> NodeStat:
        """Attributes with unfinished writes counted in; `row` is the node's row as of now."""
        self._measure()
        found = stat_of_row(self.row if row is None else row)
        if self.wgen is None and not self.gone:
            return found
        return found._replace(size=self.size, mtime_ns=self.mtime_ns, ctime_ns=max(self.mtime_ns, found.ctime_ns))

    def read(self, offset: int, size: int) -> bytes:
        """See `AreaFile.read`."""
        fd, kept = self.fd, self._kept
        content = self._source() if fd is None or kept else None
        if fd is not None:
            with disk(self.row.name):
                if kept and content is not None:
                    return Layered(fd, content, kept).read_at(offset, size)
                return os.pread(fd, size, offset)
        size = min(size, self.size - offset)
        return content.read_at(offset, size) if content is not None and size > 0 else b""

    def write(self, offset: int | None, data: bytes | bytearray | memoryview) -> int:
        """See `AreaFile.write`; no offset means at the end."""
        with self.lock:
            self._measure()
            offset = self.size if offset is None else offset
            length = len(data)
            if not length:
                return 0
            self._begin(offset, self.size)
            with disk(self.row.name):
                write_all(self._file(), data, offset)
            if self._kept:
                self._kept.remove(offset, offset + length)
            self.size = max(self.size, offset + length)
            self.mtime_ns = time.time_ns()
            return length

    def truncate(self, size: int) -> None:
        """See `AreaFile.truncate`."""
        if size < 0:
            raise AreaError(errno.EINVAL, self.row.name)
        with self.lock:
            self._measure()
            if size == self.size and self.wgen is None:
                return
            self._begin(size, min(size, self.size))
            if size != self.size:
                with disk(self.row.name):
                    os.ftruncate(self._file(), size)
            if self._kept:
                self._kept.remove(size)
            self.size = size
            self.mtime_ns = time.time_ns()

    def set_mtime(self, mtime_ns: int) -> None:
        """A time that was set by hand survives the release."""
        with self.lock:
            self.mtime_ns = mtime_ns
            if self.live and self.fd is not None:
                with disk(self.row.name):
                    os.utime(self.fd, ns=(mtime_ns, mtime_ns))

    def lend(self) -> int | None:
        """The descriptor of the generation, for the kernel to read and write it itself; None when it must not.

        It may write to a generation that is new and empty and that one handle has, until all handles are released.
        """
        with self.lock:
            is_new = self.wgen is not None and self._key() != self.stable and self.size == 0
            is_plain = not self.gone and not self.row.mode & (stat.S_ISUID | stat.S_ISGID)  # writes drop these bits
            if not self.live and is_new and is_plain and self.handles == 1:
                with suppress(AreaError):
                    self._file()
                    self.live = True
            return self.fd if self.live else None

    def seal(self, *, durable: bool = False, closed: bool = False) -> None:
        """What was written becomes the stable content.

        Args:
            durable: and it survives a power cut.
            closed: nobody writes to it any more, the kernel neither.
        """
        with self.lock:
            if durable and self.fd is not None:
                with disk(self.row.name):
                    os.fsync(self.fd)
            self._measure()
            if self.wgen is None or self.gone:
                if durable:
                    self.around.durability.sync()
                return
            live = self.live and not closed
            self.around.durability.despite_full_disk(lambda: self._record(durable=durable, live=live))

    def note_closing(self) -> None:
        """Have a recovery know what was written so far, as this may be all."""
        with self.lock:
            self._measure()
            if self.wgen is None or self.gone or (self.fd is not None and _is_nearly_full(self.fd)):
                return
            written_ns = 0 if self.fd is None else os.fstat(self.fd).st_mtime_ns
            closing = Closing(self.row.ino, self.wgen, self.size, self.mtime_ns, written_ns, self._below())
            with self.around.database.write() as db:
                closings.note(db, closing)

    def _measure(self) -> None:
        """See what the kernel has written."""
        with self._descriptor:  # stat asks without a handle, and the last one may be released meanwhile
            if self.live and self.fd is not None:
                found = os.fstat(self.fd)
                self.size, self.mtime_ns = found.st_size, found.st_mtime_ns

    def _record(self, *, durable: bool, live: bool) -> None:
        """Have the row name what was written."""
        around = self.around
        with around.durability.write() if durable else around.database.write() as db:
            row = row_at(db, self.row.ino)
            if row is None or row.wgen != self.wgen:
                self.gone = True
            else:
                found = self._switch_row(db, row, live=live)
        if not self.gone and row is not None:
            self.row = found
            self._after_seal(row, durable=durable, live=live)

    def close(self) -> None:
        """Let go of the descriptor, and of the file when nothing names it."""
        with self.lock:
            with self._descriptor:
                if self.fd is not None:
                    os.close(self.fd)
                    self.fd = None
            if self.gone and (key := self._key()) is not None and key != self.stable:
                self.around.files.discard([key])

    def _begin(self, offset: int, keep: int) -> None:
        """Make sure that bytes from `offset` on may change, in a generation that holds the first `keep` bytes."""
        if self.live or (self.wgen is not None and (self._key() != self.stable or offset >= self.stable_size)):
            self.around.closing.done(self.row.ino)
            return
        before = self.wgen
        with self.around.database.write() as db:
            in_place = self._reserve(db, append=before is None and offset >= self.stable_size)
        self.around.closing.done(self.row.ino)
        if in_place:
            return
        try:
            self._new_file(keep)
        except BaseException:
            self._abandon(before)
            raise

    def _reserve(self, db: sqlite3.Connection, *, append: bool) -> bool:
        """Note in the row which generation is written to; whether that is the stable one."""
        row = None if self.gone else self._own_row(db)
        if row is None:
            self.gone = True
            self.row = self.row._replace(last_gen=max(self.row.last_gen, self.wgen or 0) + 1)
            self.wgen = self.row.last_gen
            return False
        in_place = append and row.gen is not None and (row.ino, row.gen) == self.stable
        self.wgen = row.gen if in_place else row.last_gen + 1
        last_gen = max(row.last_gen, self.wgen or 0)
        update(db, row.ino, wgen=self.wgen, last_gen=last_gen, settled=0)
        self.row = row._replace(wgen=self.wgen, last_gen=last_gen, settled=0)
        return in_place

    def _own_row(self, db: sqlite3.Connection) -> Row | None:
        """The stored row, or None when the name is gone or its content was replaced and is being written to."""
        try:
            row = stored(db, self.around.view, self.row.ino)
        except AreaError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return row if row.wgen in (None, self.wgen) else None

    def _new_file(self, keep: int) -> None:
        """Start the generation `wgen` with the first `keep` bytes of what readers see now."""
        if keep == 0 and self.fd is None:
            self._entry = self._content = None  # O_TRUNC of committed content: nothing to copy, no file yet
            self.size = 0
            return
        fd, kept = self._create(), self._still_kept(keep)
        try:
            self._copy(fd, keep, layered=kept is not None)
        except BaseException:
            os.close(fd)
            raise
        # In this order no reader finds zeros where content below shows.
        self._kept = kept or self._kept
        self._install(fd)
        self._kept = kept
        self.size = keep

    def _still_kept(self, keep: int) -> Ranges | None:
        """What shows of the committed content below a new generation with the first `keep` bytes."""
        if self.fd is None:
            return Ranges((0, keep)) if keep >= LAYERED_FROM and self._entry is not None else None
        if self._kept is None:
            return None
        kept = Ranges(self._kept.edges)
        kept.remove(keep)
        return kept or None

    def _copy(self, fd: int, keep: int, *, layered: bool) -> None:
        with disk(self.row.name):
            if keep == 0:
                return
            if self.fd is not None:
                copy_file(self.fd, fd, keep)
                return
            if layered:
                os.ftruncate(fd, keep)
                return
            content = self._source()
            if content is not None:
                copy_content(content, fd, keep)

    def _abandon(self, before: int | None) -> None:
        """A generation could not be started (disk full): all stays as it was."""
        failed, self.wgen = self._key(), before
        if failed is not None:
            self.around.files.discard([failed])
        if self.gone:
            return
        with self.around.database.write() as db:
            row = row_at(db, self.row.ino)
            if row is not None:
                update(db, row.ino, wgen=before)
                self.row = row._replace(wgen=before)
                self.around.view.settle(db, self.row, self.around.view.node(db, row.parent))

    def _create(self) -> int:
        key = self._key()
        if key is None:
            raise AreaError(errno.EBADF, self.row.name)
        fd = self.around.files.create(key)
        if self.gone:
            self.around.files.discard([key])
        return fd

    def _install(self, fd: int) -> None:
        if self.fd is None:
            self.fd = fd
        else:
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)

    def _file(self) -> int:
        """The descriptor of the generation that is written to, made when the first byte comes."""
        if self.fd is None:
            self._install(self._create())
        fd = self.fd
        if fd is None:
            raise AreaError(errno.EBADF, self.row.name)
        return fd

    def _key(self) -> FileKey | None:
        return None if self.wgen is None else (self.row.ino, self.wgen)

    def _switch_row(self, db: sqlite3.Connection, row: Row, *, live: bool) -> Row:
        private = self.size > 0
        same = row.live and (row.size, row.mtime_ns) == (self.size, self.mtime_ns)
        columns: dict[str, object] = {
            "gen": self.wgen if private else None,
            "content": None if private else b"",
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "ctime_ns": max(self.mtime_ns, row.ctime_ns),
            "wgen": self.wgen if live else None,
            "version": row.version if same else row.version + 1,
            "settled": 0,
            "live": int(live),
            "below": self._below() if private else None,
        }
        update(db, row.ino, **columns)
        closings.forget(db, row.ino)
        new = row._replace(**columns)  # type: ignore[arg-type]
        if not private:
            self.around.view.settle(db, new, self.around.view.node(db, row.parent))
        return new

    def _after_seal(self, old: Row, *, durable: bool, live: bool) -> None:
        written = self._key()
        self.stable = written if self.size else None
        self.stable_size = self.size
        needed = written if live else self.stable
        if not live:
            self.wgen, self.live = None, False
        if old.gen is not None and (old.ino, old.gen) != needed:
            (self.around.files.discard if durable else self.around.durability.outdate)([(old.ino, old.gen)])
        if written is not None and written != needed and written[1] != old.gen:
            self.around.files.discard([written])

    def _below(self) -> bytes | None:
        kept, entry = self._kept, self._entry
        return Below(entry.size, content_key(entry), kept).to_bytes() if kept and entry is not None else None

    def _source(self) -> Content | None:
        content, entry = self._content, self._entry
        if content is None and entry is not None:
            content = self._content = self.around.open_content(entry)
        return content


@contextmanager
def disk(name: bytes) -> Iterator[None]:
    """Turn what the disk says into `AreaError`."""
    try:
        yield
    except AreaError:
        raise
    except OSError as error:
        raise AreaError(error.errno or errno.EIO, name) from error


def _is_nearly_full(fd: int) -> bool:
    """Whether the disk has less room than a few transactions take: what is left is for releases and removals."""
    disk = os.fstatvfs(fd)
    return disk.f_bavail * disk.f_frsize < 1 << 20
