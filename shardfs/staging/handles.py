"""Handles on open files, and the table of what is open in this process.

Lock order: a node's lock, then the table's guard. Nothing waits for a node's lock inside a transaction.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from typing import Final

from shardfs.errors import AreaError
from shardfs.staging.database import row_at, update
from shardfs.staging.nodes import NodeKind, NodeStat, Row, stat_of_row
from shardfs.staging.opened import OpenNode, Surroundings

_ATTEMPTS: Final = 8  # a commit may turn a private file into a reference between two looks


class AreaFile:
    """An open file of an area. Share it between threads as you like; release() it once."""

    def __init__(self, files: OpenFiles, node: OpenNode, flags: int) -> None:
        self._files = files
        self._node = node
        self._append = bool(flags & os.O_APPEND)
        self._access = flags & os.O_ACCMODE
        self.ino = node.row.ino

    def stat(self) -> NodeStat:
        """Attributes as of now, also of a file that was unlinked since."""
        return self._files.stat(self._node)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`, fewer only at the end. Sees unfinished writes of all handles."""
        if self._access == os.O_WRONLY:
            raise AreaError(errno.EBADF, self._node.row.name)
        return self._node.read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data` at `offset` (at the end when opened with O_APPEND); returns len(data).

        Raises:
            AreaError: EBADF when not opened for writing, ENOSPC and what else the disk says.
        """
        self._check_writable()
        return self._node.write(None if self._append else offset, data)

    def truncate(self, size: int) -> None:
        """Cut to, or extend with zeros to, `size` bytes."""
        self._check_writable()
        self._node.truncate(size)

    def utimens(self, mtime_ns: int) -> None:
        """Set the modification time, also of a file that was unlinked since."""
        self._files.utimens(self._node, mtime_ns)

    def shares(self, other: AreaFile) -> bool:
        """Whether both see each other's writes."""
        return self._node is other._node

    def backing(self) -> int | None:
        """A descriptor of a plain file with the content, that the kernel may read and write itself from now on.

        It stays this object's. None where the area has to see every write: to keep the stable content as it is, or
        to know what changes in a large file.
        """
        may_write = self._access != os.O_RDONLY and not self._append
        return self._node.lend() if may_write or self._node.live else None

    def flush(self) -> None:
        """A descriptor was closed (FUSE flush). Commits wait shortly for the release that follows.

        Should the session end before that comes, what was written so far is the closed content.
        """
        if self._node.wgen is not None and self._access != os.O_RDONLY:
            self._node.around.closing.flushed(self.ino)
            with suppress(AreaError):  # a full disk: the release may still find room
                self._node.note_closing()

    def fsync(self) -> None:
        """Make content and metadata durable; what was written so far is what commits take from now on."""
        self._node.seal(durable=True)

    def release(self) -> None:
        """Close. The last release of a handle that can write makes the content what commits take.

        Raises:
            AreaError: the row could not be switched (disk full); the next opener's release tries again.
        """
        self._files.release(self._node, writer=self._access != os.O_RDONLY)

    def _check_writable(self) -> None:
        if self._access == os.O_RDONLY:
            raise AreaError(errno.EBADF, self._node.row.name)


class OpenFiles:
    """The open inodes of this process."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._nodes: dict[int, OpenNode] = {}
        self._guard = threading.Lock()

    def stat_of(self, row: Row) -> NodeStat:
        """What callers see of a node, unfinished writes of this process counted in."""
        while True:
            node = self._nodes.get(row.ino)
            found = stat_of_row(row) if node is None else node.stat(row)
            if row.wgen is None or (node is not None and node.wgen is not None):
                return found
            # The row is from before a release, or another process writes: then it is still the same.
            with self._around.database.read() as db:
                now = row_at(db, row.ino)
            if now is None or now == row:
                return found
            row = now

    def stat(self, node: OpenNode) -> NodeStat:
        """Attributes of an open node, unlinked, replaced or neither."""
        if not node.gone and self._nodes.get(node.row.ino) is node:
            try:
                return self.stat_of(self._row(node.row.ino))
            except AreaError as error:
                if error.errno != errno.ENOENT:
                    raise
        return node.stat()

    def open(self, ino: int, flags: int) -> AreaFile:
        """A handle on an existing file (ENOENT, EISDIR, ELOOP)."""
        writer = flags & os.O_ACCMODE != os.O_RDONLY
        node = self._join(ino, writer=writer)
        if flags & os.O_TRUNC and writer:
            try:
                node.truncate(0)
            except BaseException:
                self.release(node, writer=True)
                raise
        return AreaFile(self, node, flags)

    def created(self, row: Row, flags: int) -> AreaFile:
        """A handle on a file that was just made with an unfinished generation."""
        node = OpenNode.fresh(self._around, row)
        node.handles, node.writers = 1, int(flags & os.O_ACCMODE != os.O_RDONLY)
        with self._guard:
            self._nodes[row.ino] = node
        return AreaFile(self, node, flags)

    def release(self, node: OpenNode, *, writer: bool) -> None:
        """One handle less."""
        try:
            with node.lock:
                node.writers -= writer
                if node.writers == 0:
                    node.seal(closed=node.handles == 1)
        finally:
            if node.writers == 0:
                self._around.closing.done(node.row.ino)
            self._unpin(node)

    def removed(self, inos: list[int]) -> None:
        """Rows are gone: open handles go on without a name."""
        for ino in inos:
            with self._guard:
                node = self._nodes.pop(ino, None)
            if node is not None:
                with node.lock:
                    node.gone = True

    def utimens(self, node: OpenNode, mtime_ns: int) -> None:
        """Set the modification time of an open node, unlinked or not."""
        node.set_mtime(mtime_ns)
        with self._around.database.write() as db:
            update(db, node.row.ino, mtime_ns=mtime_ns, ctime_ns=time.time_ns())

    def set_mtime(self, ino: int, mtime_ns: int) -> None:
        """A time that was set by hand survives the release."""
        node = self._nodes.get(ino)
        if node is not None:
            node.set_mtime(mtime_ns)

    def close(self) -> None:
        """Seal what lost its last handle to an error, and let go of everything."""
        with self._guard:
            nodes, self._nodes = list(self._nodes.values()), {}
        for node in nodes:
            if node.handles == 0:
                node.seal(closed=True)
            node.close()

    def _join(self, ino: int, *, writer: bool) -> OpenNode:
        for _ in range(_ATTEMPTS):
            node = self._pin(ino)
            if node is None:
                continue
            try:
                # Under the node's lock nobody in this process changes the row, so that the two can be compared.
                # A writer waits here while the last one before it is sealed.
                with node.lock:
                    if node.same_content(self._row(ino)):
                        node.writers += writer
                        return node
            except BaseException:
                self._unpin(node)
                raise
            self._unpin(node, detach=True)
        raise AreaError(errno.EIO, f"inode {ino}")

    def _pin(self, ino: int) -> OpenNode | None:
        """The node of an inode with one handle more; None when its file was replaced under our hands."""
        with self._guard:
            node = self._nodes.get(ino)
            if node is not None:
                node.handles += 1
                return node
        row = self._row(ino)
        if row.kind != NodeKind.FILE:
            raise AreaError(errno.EISDIR if row.kind == NodeKind.DIR else errno.ELOOP, row.name)
        try:
            fresh = OpenNode(self._around, row)
        except AreaError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        with self._guard:
            node = self._nodes.setdefault(ino, fresh)
            node.handles += 1
        if node is not fresh:
            fresh.close()
        return node

    def _unpin(self, node: OpenNode, *, detach: bool = False) -> None:
        """One handle less; the table forgets the node when nobody needs it or when `detach` says so."""
        with self._guard:
            node.handles -= 1
            # A node whose content could not be sealed stays for the next release to try again.
            last = node.handles == 0 and (node.wgen is None or node.gone)
            if (last or detach) and self._nodes.get(node.row.ino) is node:
                del self._nodes[node.row.ino]
        if last:
            node.close()

    def _row(self, ino: int) -> Row:
        with self._around.database.read() as db:
            return self._around.view.node(db, ino)
