"""The portable engine: libfuse 3 through mfusepy. It maps paths and requests to the vfs and holds no behaviour.

The only file that imports mfusepy. Its `FUSE` decides which C callbacks exist; every callback is overridden here,
because the originals decode names, drop file handles and rename flags, and cannot resume a directory listing.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from ctypes.util import find_library
from types import SimpleNamespace
from typing import Any, Final

from shardfs.errors import FsError, MountError
from shardfs.mount.nodes import Attr, Handle, Named, Node
from shardfs.mount.options import EngineOptions
from shardfs.mount.vfs import Vfs

if "FUSE_LIBRARY_PATH" not in os.environ and "FUSE_LIBRARY_NAME" not in os.environ and find_library("fuse3"):
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # mfusepy prefers libfuse 2 where both are installed
try:
    import mfusepy
except (OSError, AttributeError) as cause:
    _MSG = f"libfuse 3 cannot be loaded ({cause}); install it, for example: apt install fuse3"
    raise MountError(_MSG) from cause

_log = logging.getLogger(__name__)

# One value for the whole mount: the high-level interface has no timeouts per file. With refs.CHECK_EVERY_S a
# change by another process is visible within a second.
CACHED_S: Final = 0.75
MAX_THREADS: Final = 64  # requests that can wait for a remote before others have to wait with them
_MAX_BACKGROUND: Final = 64  # readahead requests in flight
_BLOCK_SIZE: Final = 128 << 10  # st_blksize: what readers with their own buffer ask for
_FILL_PLUS: Final = 2  # FUSE_FILL_DIR_PLUS: the entry comes with attributes
_READDIR_PLUS: Final = 1
_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2
_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE
# Asked for on every write; answered before any path is looked up.
_NO_XATTRS: Final = (b"security.", b"system.", b"trusted.")

_CALLBACKS: Final = (
    "getattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "chmod",
    "chown",
    "truncate",
    "open",
    "read",
    "write",
    "statfs",
    "flush",
    "release",
    "fsync",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "opendir",
    "readdir",
    "releasedir",
    "fsyncdir",
    "create",
    "utimens",
    "fallocate",
)


class _Directory:
    """An open directory: the listing that one pass over it goes through."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entries: list[Named] = []


class _Engine(mfusepy.FUSE):  # type: ignore[misc]
    """The callbacks. Constructing one mounts, serves until the end of the mount, and returns."""

    def __init__(self, vfs: Vfs, mountpoint: str, options: EngineOptions, ready: Callable[[], None]) -> None:
        self._vfs = vfs
        self._ready = ready
        self._is_safe = options.safe
        self._numbers = itertools.count(1)
        self._handles: dict[int, Handle] = {}
        self._directories: dict[int, _Directory] = {}
        self._attached = threading.local()
        self._owner = (os.getuid(), os.getgid())
        # Threads that end and begin again would lose what the repository keeps per thread.
        threads = {"max_idle_threads": MAX_THREADS}
        if mfusepy.fuse_version_minor >= 12:
            threads["max_threads"] = MAX_THREADS
        super().__init__(
            SimpleNamespace(use_ns=True, **dict.fromkeys(_CALLBACKS, True)),
            mountpoint,
            raw_fi=True,
            foreground=True,
            fsname=options.fsname,
            subtype="shardfs",
            nosuid=True,
            nodev=True,
            default_permissions=True,
            allow_other=options.allow_other,
            ro=options.read_only,
            **threads,
        )

    # How callbacks begin and end

    def _wrapper(self, method: Callable[..., int | None], *args: Any) -> int:
        if not hasattr(self._attached, "here"):
            # libfuse's threads are foreign to Python: each callback would make and destroy a thread state, and with
            # it the thread's database connections and codec contexts. One reference too many keeps it.
            ctypes.pythonapi.PyGILState_Ensure()
            self._attached.here = True
        try:
            return method(*args) or 0
        except OSError as error:
            return -(error.errno or errno.EIO)
        except BaseException as error:  # noqa: BLE001 - must not reach C
            _log.exception("%s failed", getattr(method, "__name__", method))
            self._vfs.causes.record(getattr(method, "__name__", "operation"), errno.EIO, error)
            return -errno.EIO

    def init_fuse_3(self, conn: Any, config: Any) -> None:
        """The connection is up: set what only the callback can set, then report."""
        settings = config.contents
        settings.nullpath_ok = 1
        settings.use_ino = 1
        settings.hard_remove = 1
        settings.entry_timeout = settings.attr_timeout = settings.negative_timeout = CACHED_S
        if self._is_safe:
            conn.contents.want = 0  # what libfuse would have agreed to
        conn.contents.max_background = _MAX_BACKGROUND
        conn.contents.congestion_threshold = _MAX_BACKGROUND * 3 // 4
        self._ready()

    # Files

    def getattr_fuse_3(self, path: bytes | None, buffer: Any, info: Any) -> None:
        """Stat."""
        handle = self._handles.get(info.contents.fh) if info else None
        attr = self._vfs.fgetattr(handle) if handle else self._vfs.stat(path or b"")
        self._fill(buffer.contents, attr)

    def readlink(self, path: bytes, buffer: Any, size: int) -> None:
        """Target of a link, cut to `size` with its final zero."""
        target = self._vfs.readlink(self._vfs.resolve(path))[: size - 1] + b"\0"
        ctypes.memmove(buffer, target, len(target))

    def open(self, path: bytes, info: Any) -> None:
        """Open a file; committed files keep the pages that the kernel has."""
        fields = info.contents
        self._remember(fields, self._vfs.open(self._vfs.resolve(path), fields.flags))

    def create(self, path: bytes, mode: int, info: Any) -> None:
        """Make and open a file."""
        fields = info.contents
        self._remember(fields, self._vfs.create(*self._vfs.parent_of(path), stat.S_IMODE(mode), fields.flags))

    def read(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Read."""
        data = self._vfs.read(self._handles[info.contents.fh], offset, size)
        ctypes.memmove(buffer, data, len(data))
        return len(data)

    def write(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Write."""
        return self._vfs.write(self._handles[info.contents.fh], offset, ctypes.string_at(buffer, size))

    def flush(self, _path: bytes | None, info: Any) -> None:
        """close(2)."""
        self._vfs.flush(self._handles[info.contents.fh])

    def fsync(self, _path: bytes | None, _datasync: int, info: Any) -> None:
        """Make durable."""
        self._vfs.fsync(self._handles[info.contents.fh])

    def release(self, _path: bytes | None, info: Any) -> None:
        """The end of an open file."""
        self._vfs.release(self._handles.pop(info.contents.fh))

    def truncate_fuse_3(self, path: bytes | None, size: int, info: Any) -> None:
        """truncate(2) and ftruncate(2)."""
        handle = self._handles.get(info.contents.fh) if info else None
        if handle is not None:
            self._vfs.ftruncate(handle, size)
        else:
            self._vfs.truncate(self._vfs.resolve(path or b""), size)

    def fallocate(self, _path: bytes | None, mode: int, offset: int, length: int, info: Any) -> None:
        """Extend a file; punching holes is not supported."""
        if mode & ~_KEEP_SIZE:
            raise FsError(errno.EOPNOTSUPP)
        handle = self._handles[info.contents.fh]
        if not mode & _KEEP_SIZE and offset + length > self._vfs.fgetattr(handle).size:
            self._vfs.ftruncate(handle, offset + length)

    # Attributes

    def chmod_fuse_3(self, path: bytes | None, mode: int, info: Any) -> None:
        """Permission bits."""
        self._vfs.chmod(self._node(path, info), stat.S_IMODE(mode))

    def chown_fuse_3(self, path: bytes | None, _uid: int, _gid: int, info: Any) -> None:
        """Owners are not kept. Changing them succeeds without effect, or root could not `cp -a` into staging."""
        self._vfs.require_writable(self._node(path, info))

    def utimens_fuse_3(self, path: bytes | None, times: Any, info: Any) -> None:
        """Modification time; access times are not kept."""
        changed = times.contents.modtime
        if changed.tv_nsec == _UTIME_OMIT:
            return
        now = changed.tv_nsec == _UTIME_NOW
        mtime_ns = time.time_ns() if now else changed.tv_sec * 10**9 + changed.tv_nsec
        handle = self._handles.get(info.contents.fh) if info else None
        if handle is not None:
            self._vfs.futimens(handle, mtime_ns)
        else:
            self._vfs.utimens(self._vfs.resolve(path or b""), mtime_ns)

    def statfs(self, _path: bytes, buffer: Any) -> None:
        """Space for `df`."""
        for key, value in self._vfs.statfs().items():
            setattr(buffer.contents, key, value)

    def setxattr(self, path: bytes, name: bytes, value: Any, size: int, flags: int) -> None:
        """Set an extended attribute."""
        if name.startswith(_NO_XATTRS):
            raise FsError(errno.EOPNOTSUPP)
        self._vfs.set_xattr(self._vfs.resolve(path), name, ctypes.string_at(value, size), flags)

    def getxattr(self, path: bytes, name: bytes, buffer: Any, size: int) -> int:
        """Value of an extended attribute; size 0 asks for its length."""
        if name.startswith(_NO_XATTRS):
            return -errno.ENODATA
        return _answer(self._vfs.get_xattr(self._vfs.resolve(path), name), buffer, size)

    def listxattr(self, path: bytes, buffer: Any, size: int) -> int:
        """Names of extended attributes, each with a final zero; size 0 asks for their length."""
        names = self._vfs.list_xattrs(self._vfs.resolve(path))
        return _answer(b"".join(name + b"\0" for name in names), buffer, size)

    def removexattr(self, path: bytes, name: bytes) -> None:
        """Remove an extended attribute."""
        self._vfs.remove_xattr(self._vfs.resolve(path), name)

    # Names

    def mknod(self, path: bytes, mode: int, _device: int) -> None:
        """Make a file without opening it."""
        self._vfs.mknod(*self._vfs.parent_of(path), mode)

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        self._vfs.mkdir(*self._vfs.parent_of(path), stat.S_IMODE(mode))

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symbolic link."""
        self._vfs.symlink(*self._vfs.parent_of(path), target)

    def link(self, _source: bytes, _path: bytes) -> None:
        """Hard links are not supported; EPERM is what programs that can do without them expect."""
        raise FsError(errno.EPERM)

    def unlink(self, path: bytes) -> None:
        """Remove a file."""
        self._vfs.unlink(*self._vfs.parent_of(path))

    def rmdir(self, path: bytes) -> None:
        """Remove a directory."""
        self._vfs.rmdir(*self._vfs.parent_of(path))

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> None:
        """Move."""
        self._vfs.rename(*self._vfs.parent_of(old), *self._vfs.parent_of(new), flags)

    # Directories

    def opendir(self, path: bytes, info: Any) -> None:
        """Open a directory; the kernel keeps listings of committed ones."""
        node = self._vfs.resolve(path)
        number = next(self._numbers)
        self._directories[number] = _Directory(node)
        info.contents.fh = number
        if self._vfs.is_committed(node):
            info.contents.cache_readdir = info.contents.keep_cache = 1

    def readdir_fuse_3(self, _path: bytes | None, buffer: Any, fill: Any, offset: int, info: Any, flags: int) -> None:
        """A part of a listing: entries from number `offset` on, until the kernel's buffer is full."""
        directory = self._directories[info.contents.fh]
        if offset == 0:
            here = Named(b".", directory.node)
            directory.entries = [here, here._replace(name=b".."), *self._vfs.readdir(directory.node)]
        plus = bool(flags & _READDIR_PLUS) and self._vfs.lists_attributes(directory.node)
        found = mfusepy.c_stat()
        for number in range(offset, len(directory.entries)):
            name, node, attr = directory.entries[number]
            full = plus and number >= 2 and self._fill_entry(found, node, attr)
            if not full:
                found.st_ino, found.st_mode = node.ino, node.type
            if fill(buffer, name, found, number + 1, _FILL_PLUS if full else 0):
                return

    def releasedir(self, _path: bytes | None, info: Any) -> None:
        """The end of an open directory."""
        del self._directories[info.contents.fh]

    def fsyncdir(self, _path: bytes | None, _datasync: int, info: Any) -> None:
        """fsync(2) of a directory."""
        self._vfs.fsync_dir(self._directories[info.contents.fh].node)

    # Translations

    def _remember(self, info: Any, handle: Handle) -> None:
        number = next(self._numbers)
        self._handles[number] = handle
        info.fh = number
        info.keep_cache = handle.keep_cache
        info.direct_io = handle.direct_io

    def _node(self, path: bytes | None, info: Any) -> Node:
        handle = self._handles.get(info.contents.fh) if info else None
        return handle.node if handle is not None else self._vfs.resolve(path or b"")

    def _fill_entry(self, found: Any, node: Node, attr: Attr | None) -> bool:
        try:
            self._fill(found, attr or self._vfs.getattr(node))
        except FsError:
            return False  # its name is listed; looking at it gives the error
        return True

    def _fill(self, found: Any, attr: Attr) -> None:
        found.st_ino = attr.ino
        found.st_mode = attr.mode
        found.st_nlink = attr.nlink
        found.st_size = attr.size
        found.st_blocks = attr.blocks
        found.st_blksize = _BLOCK_SIZE
        found.st_uid, found.st_gid = self._owner
        changed = divmod(attr.mtime_ns, 10**9)
        found.st_mtimespec.tv_sec, found.st_mtimespec.tv_nsec = changed
        found.st_atimespec.tv_sec, found.st_atimespec.tv_nsec = changed
        if attr.ctime_ns is not None:
            changed = divmod(attr.ctime_ns, 10**9)
        found.st_ctimespec.tv_sec, found.st_ctimespec.tv_nsec = changed


def serve(vfs: Vfs, mountpoint: str, options: EngineOptions, ready: Callable[[], None]) -> None:
    """Mount and serve until the mount ends.

    Args:
        vfs: what to show.
        mountpoint: an existing directory.
        options: how to mount.
        ready: called once when the mount can be used, on a thread that must not be kept.

    Raises:
        MountError: the mount could not be made; libfuse has written the reason to standard error.
    """
    if mfusepy.fuse_version_major != 3:
        msg = "libfuse 3 is needed, only libfuse 2 was found; install it, for example: apt install fuse3"
        raise MountError(msg)
    try:
        _Engine(vfs, mountpoint, options, ready)
    except RuntimeError as error:
        msg = f"cannot mount on {mountpoint} (libfuse status {error})"
        raise MountError(msg) from error


def _answer(value: bytes, buffer: Any, size: int) -> int:
    if size == 0:
        return len(value)
    if len(value) > size:
        return -errno.ERANGE
    ctypes.memmove(buffer, value, len(value))
    return len(value)
