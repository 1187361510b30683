"""Which request is answered by what, and which of them at once."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from shardfs.errors import FsError
from shardfs.mount.kernel.attributes import Attributes
from shardfs.mount.kernel.directories import Directories
from shardfs.mount.kernel.encode import Encoder
from shardfs.mount.kernel.entries import Entries
from shardfs.mount.kernel.files import Files
from shardfs.mount.kernel.messages import Opcode
from shardfs.mount.kernel.names import Names
from shardfs.mount.kernel.passthrough import Passthrough
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Table
from shardfs.mount.vfs import CONTROL, Vfs

_OF_COMMITTED: Final = frozenset({Opcode.OPEN, Opcode.READLINK})  # at once, for they take no bytes from anywhere
_OF_ENTRIES: Final = frozenset({Opcode.LOOKUP, Opcode.READDIR, Opcode.READDIRPLUS})
_OF_LISTINGS: Final = frozenset({Opcode.OPENDIR, Opcode.RELEASEDIR})


class Operations:
    """Answers requests from a vfs. Safe to share between threads."""

    def __init__(self, vfs: Vfs, table: Table, encoder: Encoder, passthrough: Passthrough) -> None:
        self._vfs = vfs
        self._table = table
        entries = Entries(vfs, table, encoder)
        self._files = files = Files(vfs, table, entries, passthrough)
        self._attributes = attributes = Attributes(vfs, table, entries, files)
        names, directories = Names(vfs, table, entries), Directories(vfs, table, entries)
        self._answers: dict[int, Callable[[Request], Reply]] = {
            Opcode.LOOKUP: names.lookup,
            Opcode.GETATTR: attributes.get,
            Opcode.SETATTR: attributes.set,
            Opcode.READLINK: names.readlink,
            Opcode.SYMLINK: names.symlink,
            Opcode.MKNOD: names.mknod,
            Opcode.MKDIR: names.mkdir,
            Opcode.UNLINK: names.unlink,
            Opcode.RMDIR: names.rmdir,
            Opcode.RENAME: names.rename,
            Opcode.RENAME2: names.rename2,
            Opcode.LINK: names.link,
            Opcode.OPEN: files.open,
            Opcode.CREATE: files.create,
            Opcode.READ: files.read,
            Opcode.WRITE: files.write,
            Opcode.FLUSH: files.flush,
            Opcode.FSYNC: files.sync,
            Opcode.RELEASE: files.release,
            Opcode.FALLOCATE: files.allocate,
            Opcode.STATFS: attributes.statfs,
            Opcode.GETXATTR: attributes.get_extended,
            Opcode.LISTXATTR: attributes.list_extended,
            Opcode.SETXATTR: attributes.set_extended,
            Opcode.REMOVEXATTR: attributes.remove_extended,
            Opcode.OPENDIR: directories.open,
            Opcode.READDIR: directories.read,
            Opcode.READDIRPLUS: directories.read_plus,
            Opcode.RELEASEDIR: directories.release,
            Opcode.FSYNCDIR: directories.sync,
        }

    def answer(self, request: Request) -> Reply:
        """The reply to a request.

        Raises:
            OSError: with the errno that the program gets. ENOSYS: the kernel need not ask for this again. ESTALE: the
                node is gone, and its name may lead to another one: the kernel looks it up again.
        """
        handler = self._answers.get(request.opcode)
        if handler is None:
            raise FsError(errno.ENOSYS)
        try:
            return handler(request)
        except FsError as error:
            if error.errno == errno.ENOENT and self._is_gone(request.nodeid):
                raise FsError(errno.ESTALE) from error
            raise

    def _is_gone(self, nodeid: int) -> bool:
        """Whether a node is no longer there; a commit gives others to names that it settles."""
        known = self._table.get(nodeid)
        if known.is_committed:
            return False
        try:
            self._vfs.getattr(known.node)
        except FsError as error:
            return error.errno == errno.ENOENT
        return False

    def is_quick(self, request: Request) -> bool:
        """Whether the answer needs nothing but memory: no lock that is held for long, no disk, no remote.

        Raises:
            KeyError: the kernel was never told of such a node or open file.
        """
        opcode = request.opcode
        if opcode not in self._answers:
            return True  # Python asks with an ioctl of every file that it opens whether it is a terminal
        if opcode == Opcode.READ:
            return self._files.is_ready(request)
        if opcode == Opcode.GETXATTR:
            return self._attributes.is_refused(request)
        if opcode in (Opcode.FLUSH, Opcode.RELEASE):
            return self._files.is_committed(request)
        if opcode in _OF_LISTINGS:
            return True
        known = self._table.get(request.nodeid)
        if not known.is_committed:
            return False
        if opcode == Opcode.GETATTR:
            return known.is_warm or not known.node.is_dir
        return opcode in _OF_COMMITTED or (known.is_warm and opcode in _OF_ENTRIES)

    def is_about_mount(self, request: Request) -> bool:
        """Whether the answer says how the mount is: whoever asks that must not wait for those who read.

        Raises:
            KeyError: as `is_quick`.
        """
        opcode = request.opcode
        if opcode == Opcode.STATFS:
            return True
        known = self._table.get(request.nodeid)
        if known is self._table.root:
            return opcode == Opcode.GETATTR or (opcode == Opcode.LOOKUP and request.body == CONTROL + b"\0")
        return self._vfs.is_control(known.node)
