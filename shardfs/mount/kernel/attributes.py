"""Attributes of files, and of the file system."""

from __future__ import annotations

import errno
import stat
import time
from typing import Final

from shardfs.errors import FsError
from shardfs.mount.kernel.entries import Entries
from shardfs.mount.kernel.files import Files, drop_privileges
from shardfs.mount.kernel.messages import GETXATTR_IN, GETXATTR_OUT, SETATTR_IN, SETXATTR_IN, STATFS_OUT, Valid
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Table
from shardfs.mount.vfs import Vfs

_NO_XATTRS: Final = (b"security.", b"system.", b"trusted.")


class Attributes:
    """Answers to requests about attributes."""

    def __init__(self, vfs: Vfs, table: Table, entries: Entries, files: Files) -> None:
        self._vfs = vfs
        self._table = table
        self._entries = entries
        self._files = files

    def get(self, request: Request) -> Reply:
        """GETATTR."""
        return (self._entries.attr(self._table.get(request.nodeid)),)

    def set(self, request: Request) -> Reply:
        """SETATTR. Owners and times of access are not kept: changing them succeeds without effect."""
        valid, _, number, size, _, _, seconds, _, _, nanoseconds, _, mode = SETATTR_IN.unpack_from(request.body)
        vfs, known = self._vfs, self._table.get(request.nodeid)
        handle = self._files.handle(number) if valid & Valid.FH else next(reversed(known.handles), None)
        vfs.require_writable(known.node)
        if valid & Valid.MODE:
            vfs.chmod(known.node, stat.S_IMODE(mode))
        if valid & Valid.SIZE:
            if valid & Valid.FH and handle is not None:
                vfs.ftruncate(handle, size)
            else:
                vfs.truncate(known.node, size)
        if valid & Valid.KILL_SUIDGID:
            drop_privileges(vfs, known.node)
        if valid & (Valid.MTIME | Valid.MTIME_NOW):
            seconds -= (seconds >> 63) << 64  # signed
            mtime_ns = time.time_ns() if valid & Valid.MTIME_NOW else seconds * 10**9 + nanoseconds
            if handle is not None:
                vfs.futimens(handle, mtime_ns)
            else:
                vfs.utimens(known.node, mtime_ns)
        return (self._entries.attr(known),)

    def statfs(self, _request: Request) -> Reply:
        """STATFS: space for `df`."""
        found = self._vfs.statfs()
        keys = ("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_bsize", "f_namemax", "f_frsize")
        return (STATFS_OUT.pack(*(found[key] for key in keys)),)

    def is_refused(self, request: Request) -> bool:
        """Whether a GETXATTR asks for what is never there, as the kernel itself does now and then."""
        return bytes(request.body[GETXATTR_IN.size :]).startswith(_NO_XATTRS)

    def get_extended(self, request: Request) -> Reply:
        """GETXATTR."""
        name = bytes(request.body[GETXATTR_IN.size :]).rstrip(b"\0")
        if name.startswith(_NO_XATTRS):
            raise FsError(errno.ENODATA)
        return _fitting(request, self._vfs.get_xattr(self._table.get(request.nodeid).node, name))

    def list_extended(self, request: Request) -> Reply:
        """LISTXATTR: names, each with a final zero."""
        names = self._vfs.list_xattrs(self._table.get(request.nodeid).node)
        return _fitting(request, b"".join(name + b"\0" for name in names))

    def set_extended(self, request: Request) -> Reply:
        """SETXATTR."""
        size, flags = SETXATTR_IN.unpack_from(request.body)
        name, _, rest = bytes(request.body[SETXATTR_IN.size :]).partition(b"\0")
        if name.startswith(_NO_XATTRS):
            raise FsError(errno.EOPNOTSUPP)
        self._vfs.set_xattr(self._table.get(request.nodeid).node, name, rest[:size], flags)
        return ()

    def remove_extended(self, request: Request) -> Reply:
        """REMOVEXATTR."""
        self._vfs.remove_xattr(self._table.get(request.nodeid).node, bytes(request.body).rstrip(b"\0"))
        return ()


def _fitting(request: Request, value: bytes) -> Reply:
    """A value, or its length where the program asks for that with size 0."""
    room, _ = GETXATTR_IN.unpack_from(request.body)
    if room == 0:
        return (GETXATTR_OUT.pack(len(value), 0),)
    if len(value) > room:
        raise FsError(errno.ERANGE)
    return (value,)
