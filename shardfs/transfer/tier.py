"""Contents as plain files of the cache: made of verified chunks, checked before they are handed out.

A program that reads a file again and again is served best by the kernel from a plain file. A file that another process
made, or that was there before this process started, is checked once against the ids of its chunks; what does not
match is deleted and made again when it is wanted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

from shardfs import threads
from shardfs.errors import ShardfsError
from shardfs.formats.ids import chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.tree import FileEntry
from shardfs.history.content import FileReader
from shardfs.store.plain_files import PlainFiles, Stamp

_log = logging.getLogger(__name__)

READS: Final = 2  # a file is made when the daemon served it so often: one read is often the only one
MIN_SIZE: Final = 1 << 20  # bytes; the kernel keeps smaller files, and each plain file takes an inode
MAX_SHARE: Final = 2  # files of more than this part of the cache would drive all else out of it
_MAX_COUNTED: Final = 10_000  # contents whose reads are counted
_CLOSE_S: Final = 1.0  # for which the end of a program waits for the chunk that is read
_FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h


class PlainFileCounters(NamedTuple):
    """What became of plain files.

    Attributes:
        files: whole plain files in the cache now, of all processes.
        bytes: what they hold now.
        made: written by this process.
        checked: compared with the ids of their chunks by this process.
        served: descriptors that this process handed out.
        evicted: removed by this process to make room, or because it was asked to.
        damaged: found damaged by this process, and removed.
    """

    files: int
    bytes: int
    made: int
    checked: int
    served: int
    evicted: int
    damaged: int


def content_of(entry: FileEntry) -> bytes | None:
    """What names the content of a file: its manifest, or its only chunk; None when it is empty."""
    return entry.manifest or entry.chunk


class Tier:
    """Makes, checks and hands out plain files. Safe to share between threads; close() once."""

    def __init__(self, files: PlainFiles, open_once: Callable[[FileEntry], FileReader], *, limit_bytes: int) -> None:
        """A tier over the plain files of a cache.

        Args:
            files: the plain files.
            open_once: opens the content of a committed file, to be read from front to back.
            limit_bytes: size of the cache; 0 turns all of this off.
        """
        self.files = files
        self._open_once = open_once
        self._limit_bytes = limit_bytes
        self._checked: dict[bytes, Stamp] = {}
        self._read: OrderedDict[bytes, int] = OrderedDict()  # bytes served since the file was last made
        self._served = self._checks = self._damaged = 0
        self._worker: threading.Thread | None = None
        self._is_closed = False
        self._reset()
        _instances.add(self)

    @property
    def is_on(self) -> bool:
        """Whether there are plain files at all."""
        return self._limit_bytes > 0

    def plain_file(self, entry: FileEntry) -> int | None:
        """See `Repository.plain_file`."""
        id_ = content_of(entry)
        fd = self.files.open(id_) if id_ is not None and self.is_on else None
        if fd is None or id_ is None:
            return None
        if self.files.is_use_untold:
            self._want("tell", b"", self.files.tell_use)
        if self._checked.get(id_) == Stamp.of(fd):
            self._served += 1
            return fd
        os.close(fd)
        self._want("check", id_, lambda: self._check_again(id_, entry))
        return None

    def chunk(self, entry: FileEntry, chunk: ChunkRef, offset: int) -> bytes | None:
        """A chunk at an offset of a content, verified, from its plain file, which need not be checked; None without."""
        id_ = content_of(entry)
        fd = self.files.open(id_) if id_ is not None and self.is_on else None
        if fd is None:
            return None
        try:
            data = os.pread(fd, chunk.size, offset)
        except OSError:
            return None
        finally:
            os.close(fd)
        return data if chunk_id(data) == chunk.id else None

    def path(self, entry: FileEntry) -> Path | None:
        """Where the checked plain file of a content is; None when there is none."""
        fd = self.plain_file(entry)
        if fd is None:
            return None
        os.close(fd)
        return self.files.path(content_of(entry) or b"")

    def note_read(self, entry: FileEntry, size: int) -> None:
        """See `Repository.note_read`."""
        id_ = content_of(entry)
        if id_ is None or not MIN_SIZE <= entry.size <= self._limit_bytes // MAX_SHARE:
            return
        with self._lock:
            read = self._read.pop(id_, 0) + size
            if len(self._read) >= _MAX_COUNTED:
                self._read.popitem(last=False)
            self._read[id_] = read
        if read >= READS * entry.size and not self.files.holds(id_, entry.size):
            self._want("make", id_, lambda: self._make_again(id_, entry))

    def make(self, entry: FileEntry, blocks: Callable[[Manifest], Iterable[bytes]] | None = None) -> bool:
        """Write the plain file of a content unless there is one; whether this call made it.

        Args:
            entry: the file.
            blocks: gives the plaintext of the chunks of a manifest, verified, in order; None reads them one by one.

        Raises:
            ShardfsError: as `FileReader.read_at`; there is no file then.
        """
        id_ = content_of(entry)
        if id_ is None or not self.is_on or self.files.holds(id_, entry.size):
            return False
        reader = self._open_once(entry)
        unfinished = self.files.begin(id_, entry.size)
        if unfinished is None:
            return False
        try:
            with unfinished:
                for block in reader.blocks() if blocks is None else blocks(reader.manifest):
                    if self._is_closed:
                        return False
                    unfinished.write(block)
                stamp = unfinished.finish()
        except OSError as error:
            self.files.report("writing", error)
            return False
        if stamp is not None:
            self._checked[id_] = stamp
        return stamp is not None

    def clone(self, entry: FileEntry, target: int) -> bool:
        """Make an empty file share the blocks of the plain file of a content, checked.

        Args:
            entry: the file.
            target: descriptor of the empty file, open for reading and writing.

        Returns:
            False when there is no plain file, when the file systems cannot do that, or when it was damaged: `target`
            is empty then.

        Raises:
            ShardfsError: the manifest cannot be read.
        """
        id_ = content_of(entry)
        fd = self.files.open(id_) if id_ is not None and self.is_on else None
        if fd is None or id_ is None:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, fd)
            # The copy is what counts: the plain file may change after the check of it.
            if self._checked.get(id_) == Stamp.of(fd) or _is_whole(target, self._open_once(entry).manifest):
                return True
            self._drop_damaged(id_)
        except OSError:
            pass
        finally:
            os.close(fd)
        os.ftruncate(target, 0)
        return False

    def counters(self) -> PlainFileCounters:
        """What this tier has done so far, and what there is."""
        files, size = self.files.totals() if self.is_on else (0, 0)
        return PlainFileCounters(
            files, size, self.files.made, self._checks, self._served, self.files.evicted, self._damaged
        )

    def close(self) -> None:
        """Start nothing more; an unfinished file is given up after the chunk that is read now.

        What waits for a remote meanwhile ends by itself.
        """
        self._is_closed = True
        self._queue.put(None)
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join(_CLOSE_S)

    # In the background

    def _want(self, what: str, id_: bytes, work: Callable[[], object]) -> None:
        """Have something done for a content, unless that is on its way."""
        with self._lock:
            if self._is_closed or (what, id_) in self._wanted:
                return
            self._wanted[what, id_] = work
            if self._worker is None:
                self._worker = threads.start(self._work, "plain-files")
        self._queue.put((what, id_))

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if not self._is_closed:
                try:
                    self._wanted[item]()
                except (ShardfsError, OSError) as error:
                    _log.info("no plain file of %s: %s", item[1].hex()[:12], error)
                except Exception:  # noqa: BLE001 - the next one may be made
                    _log.exception("no plain file of %s", item[1].hex()[:12])
            with self._lock:
                self._wanted.pop(item, None)

    def _make_again(self, id_: bytes, entry: FileEntry) -> None:
        """Count anew whatever comes of it: what failed is not tried with every read."""
        with self._lock:
            self._read.pop(id_, None)
        self.make(entry)

    def _check_again(self, id_: bytes, entry: FileEntry) -> None:
        fd = self.files.open(id_)
        if fd is None:
            return
        try:
            stamp = Stamp.of(fd)
            if self._checked.get(id_) == stamp:
                return
            self._checks += 1
            if not _is_whole(fd, self._open_once(entry).manifest):
                self._drop_damaged(id_)
            elif Stamp.of(fd) == stamp:
                self._checked[id_] = stamp
        finally:
            os.close(fd)

    def _drop_damaged(self, id_: bytes) -> None:
        self._checked.pop(id_, None)
        size = self.files.discard(id_)
        self._damaged += 1
        _log.warning("plain file %s was damaged and is deleted, %d bytes; it can be made again", id_.hex()[:12], size)

    def _reset(self) -> None:
        """Fresh locks and no worker: after a fork the threads that held the old ones do not exist."""
        self._lock = threading.Lock()
        self._wanted: dict[tuple[str, bytes], Callable[[], object]] = {}
        self._queue: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        self._worker = None
        self._is_closed = False


def _is_whole(fd: int, manifest: Manifest) -> bool:
    """Whether a file holds exactly the chunks of a manifest.

    Raises:
        OSError: it cannot be read.
    """
    offset = 0
    for chunk in manifest.chunks:
        data = os.pread(fd, chunk.size, offset)
        if len(data) != chunk.size or chunk_id(data) != chunk.id:
            return False
        offset += chunk.size
    return os.fstat(fd).st_size == offset


_instances: weakref.WeakSet[Tier] = weakref.WeakSet()


def _after_fork() -> None:
    for tier in list(_instances):
        tier._reset()


os.register_at_fork(after_in_child=_after_fork)
