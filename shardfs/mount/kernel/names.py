"""Names: looking them up, making, moving and removing them."""

from __future__ import annotations

import errno
import stat

from shardfs.errors import FsError
from shardfs.formats.tree import MAX_NAME_SIZE
from shardfs.mount.kernel import policy
from shardfs.mount.kernel.encode import absent
from shardfs.mount.kernel.entries import Entries
from shardfs.mount.kernel.messages import MKDIR_IN, MKNOD_IN, RENAME2_IN, RENAME_IN
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.nodes import Node
from shardfs.mount.vfs import Vfs


class Names:
    """Answers to requests about names."""

    def __init__(self, vfs: Vfs, table: Table, entries: Entries) -> None:
        self._vfs = vfs
        self._table = table
        self._entries = entries

    def lookup(self, request: Request) -> Reply:
        """LOOKUP."""
        parent = self._table.get(request.nodeid)
        name = _name(request.body)
        try:
            node = self._vfs.lookup(parent.node, name)
        except FsError as error:
            seconds = policy.absence(parent)
            if error.errno != errno.ENOENT or not seconds:
                raise
            parent.is_warm = True
            return (absent(seconds),)
        parent.is_warm = True
        try:
            return self._told(request, parent, name, node)
        except FsError as error:
            if error.errno != errno.ENOENT:
                raise
        return self.lookup(request)  # another file was renamed over it meanwhile: a name is never without one

    def readlink(self, request: Request) -> Reply:
        """READLINK."""
        return (self._vfs.readlink(self._table.get(request.nodeid).node),)

    def mknod(self, request: Request) -> Reply:
        """MKNOD."""
        mode, *_ = MKNOD_IN.unpack_from(request.body)
        parent, name = self._parent(request, MKNOD_IN.size)
        return self._told(request, parent, name, self._vfs.mknod(parent.node, name, mode))

    def mkdir(self, request: Request) -> Reply:
        """MKDIR."""
        mode, _ = MKDIR_IN.unpack_from(request.body)
        parent, name = self._parent(request, MKDIR_IN.size)
        return self._told(request, parent, name, self._vfs.mkdir(parent.node, name, stat.S_IMODE(mode)))

    def symlink(self, request: Request) -> Reply:
        """SYMLINK."""
        parent = self._table.get(request.nodeid)
        name, target, _ = bytes(request.body).split(b"\0")
        return self._told(request, parent, name, self._vfs.symlink(parent.node, name, target))

    def link(self, _request: Request) -> Reply:
        """LINK: not supported; EPERM is what programs that can do without hard links expect."""
        raise FsError(errno.EPERM)

    def unlink(self, request: Request) -> Reply:
        """UNLINK."""
        self._vfs.unlink(self._table.get(request.nodeid).node, _name(request.body))
        return ()

    def rmdir(self, request: Request) -> Reply:
        """RMDIR."""
        self._vfs.rmdir(self._table.get(request.nodeid).node, _name(request.body))
        return ()

    def rename(self, request: Request) -> Reply:
        """RENAME."""
        (new_parent,) = RENAME_IN.unpack_from(request.body)
        return self._rename(request, new_parent, 0, RENAME_IN.size)

    def rename2(self, request: Request) -> Reply:
        """RENAME2."""
        new_parent, flags, _ = RENAME2_IN.unpack_from(request.body)
        return self._rename(request, new_parent, flags, RENAME2_IN.size)

    def _rename(self, request: Request, new_parent: int, flags: int, behind: int) -> Reply:
        old, new, _ = bytes(request.body[behind:]).split(b"\0")
        source, target = self._table.get(request.nodeid), self._table.get(new_parent)
        self._vfs.rename(source.node, old, target.node, new, flags)
        return ()

    def _parent(self, request: Request, behind: int) -> tuple[Known, bytes]:
        return self._table.get(request.nodeid), _name(request.body[behind:])

    def _told(self, request: Request, parent: Known, name: bytes, node: Node) -> Reply:
        known, entry = self._entries.tell(parent, name, node)
        request.undo = lambda: self._entries.forget(known)
        return (entry,)


def _name(body: bytes | memoryview) -> bytes:
    name = bytes(body).rstrip(b"\0")
    if len(name) > MAX_NAME_SIZE:  # the kernel refuses only names over 1024 bytes
        raise FsError(errno.ENAMETOOLONG)
    return name
