"""Listings."""

from __future__ import annotations

import itertools
from typing import Final

from shardfs.errors import FsError
from shardfs.mount.kernel.encode import NO_ENTRY, dirent
from shardfs.mount.kernel.entries import Entries
from shardfs.mount.kernel.messages import DIRENT, HANDLE_IN, OPEN_OUT, READ_IN, OpenFlag
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.nodes import Named
from shardfs.mount.vfs import Vfs

_DOTS: Final = 2  # entries "." and ".." come first; the kernel wants to hear nothing about them


class _Listing:
    """An open directory: what one pass over it goes through."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.entries: list[Named] = []


class Directories:
    """Answers to requests about open directories."""

    def __init__(self, vfs: Vfs, table: Table, entries: Entries) -> None:
        self._vfs = vfs
        self._table = table
        self._entries = entries
        self._numbers = itertools.count(1)
        self._open: dict[int, _Listing] = {}

    def open(self, request: Request) -> Reply:
        """OPENDIR. The kernel keeps listings of committed directories."""
        known = self._table.get(request.nodeid)
        number = next(self._numbers)
        self._open[number] = _Listing(known)
        flags = OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR if known.is_committed else 0
        request.undo = lambda: self._close(number)
        return (OPEN_OUT.pack(number, flags, 0),)

    def read(self, request: Request) -> Reply:
        """READDIR: entries from a position on, until the kernel's buffer is full."""
        listing, position, room = self._at(request)
        parts: list[bytes] = []
        for name, node, _ in listing.entries[position:]:
            position += 1
            made = dirent(node.ino, position, name, node.type)
            room -= len(made)
            if room < 0:
                break
            parts.append(made)
        return (b"".join(parts),)

    def read_plus(self, request: Request) -> Reply:
        """READDIRPLUS: the same with attributes."""
        listing, position, room = self._at(request)
        parent = listing.known
        full = parent.is_committed or self._vfs.is_staged(parent.node)
        told: list[Known] = []

        def undo() -> None:
            for known in told:
                self._entries.forget(known)

        request.undo = undo
        parts: list[bytes] = []
        for name, node, attr in listing.entries[position:]:
            position += 1
            room -= len(NO_ENTRY) + DIRENT.size + len(name) + -len(name) % 8
            if room < 0:
                break
            entry = NO_ENTRY
            if full and position > _DOTS:
                try:
                    known, entry = self._entries.tell(parent, name, node, attr)
                except FsError:
                    pass  # its name is listed; looking at it gives the error
                else:
                    told.append(known)
            parts += (entry, dirent(node.ino, position, name, node.type))
        return (b"".join(parts),)

    def sync(self, request: Request) -> Reply:
        """FSYNCDIR."""
        self._vfs.fsync_dir(self._table.get(request.nodeid).node)
        return ()

    def release(self, request: Request) -> Reply:
        """RELEASEDIR."""
        self._close(HANDLE_IN.unpack_from(request.body)[0])
        return ()

    def _at(self, request: Request) -> tuple[_Listing, int, int]:
        number, position, room = READ_IN.unpack_from(request.body)
        listing = self._open[number]
        if position == 0 or not listing.entries:
            node = listing.known.node
            listing.entries = [Named(b".", node), Named(b"..", node), *self._vfs.readdir(node)]
            listing.known.is_warm = True
        return listing, position, room

    def _close(self, number: int) -> None:
        self._open.pop(number, None)
