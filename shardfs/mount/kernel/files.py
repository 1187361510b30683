"""Open files."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from contextlib import suppress
from typing import Final

from shardfs.errors import FsError
from shardfs.mount.kernel.entries import Entries
from shardfs.mount.kernel.messages import (
    CREATE_IN,
    FALLOCATE_IN,
    HANDLE_IN,
    OPEN_IN,
    OPEN_KILL_SUIDGID,
    OPEN_OUT,
    READ_IN,
    WRITE_IN,
    WRITE_KILL_SUIDGID,
    WRITE_OUT,
    OpenFlag,
)
from shardfs.mount.kernel.passthrough import Passthrough
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.nodes import Handle, Node
from shardfs.mount.vfs import Vfs

_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE


class Files:
    """Answers to requests about open files."""

    def __init__(self, vfs: Vfs, table: Table, entries: Entries, passthrough: Passthrough) -> None:
        self._vfs = vfs
        self._table = table
        self._entries = entries
        self._passthrough = passthrough
        self._numbers = itertools.count(1)
        self._open: dict[int, Handle] = {}

    def handle(self, number: int) -> Handle:
        """The open file that the kernel calls `number`."""
        return self._open[number]

    def is_ready(self, request: Request) -> bool:
        """Whether the bytes that a READ asks for are in memory."""
        number, offset, size = READ_IN.unpack_from(request.body)
        return self._vfs.is_ready(self._open[number], offset, size)

    def is_committed(self, request: Request) -> bool:
        """Whether a FLUSH or RELEASE is about a committed file, for which there is nothing to do."""
        return self._vfs.is_committed(self._open[HANDLE_IN.unpack_from(request.body)[0]].node)

    def open(self, request: Request) -> Reply:
        """OPEN."""
        flags, more = OPEN_IN.unpack_from(request.body)
        known = self._table.get(request.nodeid)
        handle = self._vfs.open(known.node, flags)
        request.undo = lambda: self._vfs.release(handle)
        if more & OPEN_KILL_SUIDGID and flags & os.O_TRUNC:
            drop_privileges(self._vfs, known.node)
        number, opened = self._begin(known, handle)
        request.undo = lambda: self._end(known, number)
        return (opened,)

    def create(self, request: Request) -> Reply:
        """CREATE: make and open."""
        flags, mode, _, _ = CREATE_IN.unpack_from(request.body)
        name = bytes(request.body[CREATE_IN.size :]).rstrip(b"\0")
        parent = self._table.get(request.nodeid)
        handle = self._vfs.create(parent.node, name, stat.S_IMODE(mode), flags)
        request.undo = lambda: self._vfs.release(handle)
        known, entry = self._entries.tell(parent, name, handle.node, self._vfs.fgetattr(handle))
        try:
            number, opened = self._begin(known, handle)
        except FsError:
            self._entries.forget(known)
            raise

        def undo() -> None:
            self._end(known, number)
            self._entries.forget(known)

        request.undo = undo
        return (entry, opened)

    def read(self, request: Request) -> Reply:
        """READ."""
        number, offset, size = READ_IN.unpack_from(request.body)
        return self._vfs.read_pieces(self._open[number], offset, size)

    def write(self, request: Request) -> Reply:
        """WRITE."""
        number, offset, size, flags, *_ = WRITE_IN.unpack_from(request.body)
        handle = self._open[number]
        if flags & WRITE_KILL_SUIDGID:
            drop_privileges(self._vfs, handle.node)
        data = memoryview(request.body)[WRITE_IN.size : WRITE_IN.size + size]
        return (WRITE_OUT.pack(self._vfs.write(handle, offset, data), 0),)

    def flush(self, request: Request) -> Reply:
        """FLUSH: a descriptor was closed."""
        self._vfs.flush(self._of(request))
        return ()

    def sync(self, request: Request) -> Reply:
        """FSYNC."""
        self._vfs.fsync(self._of(request))
        return ()

    def release(self, request: Request) -> Reply:
        """RELEASE: the last descriptor and mapping is gone."""
        self._end(self._table.get(request.nodeid), HANDLE_IN.unpack_from(request.body)[0])
        return ()

    def allocate(self, request: Request) -> Reply:
        """FALLOCATE: extend a file; punching holes is not supported."""
        number, offset, length, mode = FALLOCATE_IN.unpack_from(request.body)
        if mode & ~_KEEP_SIZE:
            raise FsError(errno.EOPNOTSUPP)
        handle = self._open[number]
        if not mode & _KEEP_SIZE and offset + length > self._vfs.fgetattr(handle).size:
            self._vfs.ftruncate(handle, offset + length)
        return ()

    def _of(self, request: Request) -> Handle:
        return self._open[HANDLE_IN.unpack_from(request.body)[0]]

    def _begin(self, known: Known, handle: Handle) -> tuple[int, bytes]:
        """Remember an open file: its number, and what the kernel is told of it.

        Raises:
            FsError: ESTALE. The node is open with a content that is no longer there (staging was reset, the branch
                moved); the kernel looks the name up again, and finds a new node that shares no pages with it.
        """
        other = next(reversed(known.handles), None)
        if other is not None and not handle.shares(other):
            self._table.renew(known)
            raise FsError(errno.ESTALE)
        number = next(self._numbers)
        self._open[number] = handle
        if not known.is_committed:
            known.handles.append(handle)
        backing = self._passthrough.begin(known, handle)
        flags = OpenFlag.NOFLUSH if handle.keep_cache else OpenFlag(0)  # content that never changes: nothing to flush
        if backing:
            flags |= OpenFlag.PASSTHROUGH
        elif handle.keep_cache:
            flags |= OpenFlag.KEEP_CACHE
        if handle.direct_io:
            flags |= OpenFlag.DIRECT_IO
        return number, OPEN_OUT.pack(number, flags, backing)

    def _end(self, known: Known, number: int) -> None:
        handle = self._open.pop(number)
        with suppress(ValueError):
            known.handles.remove(handle)
        self._passthrough.end(known)
        self._vfs.release(handle)


def drop_privileges(vfs: Vfs, node: Node) -> None:
    """Somebody without the right to keep them changes the content: the file runs as nobody else any more.

    One without a name cannot be run: nothing happens to it.
    """
    try:
        mode = vfs.getattr(node).mode
    except FsError:
        return
    kept = mode & ~stat.S_ISUID & ~(stat.S_ISGID if mode & stat.S_IXGRP else 0)
    if kept != mode:
        vfs.chmod(node, stat.S_IMODE(kept))
