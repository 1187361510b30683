"""The messages of /dev/fuse: numbers and layouts of the kernel's ABI, `include/uapi/linux/fuse.h`, from 7.31 on.

Native byte order. Layouts end where the fields end that are used; the kernel's own may be longer.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 40  # the newest that is spoken; the kernel takes the lower one of both
OLDEST_MINOR: Final = 31  # Linux 5.4
ROOT_ID: Final = 1


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2  # no reply
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42  # no reply
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45


class Notice(IntEnum):
    """What the file system tells the kernel unasked; goes where a reply has its errno."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3


class Init(IntFlag):
    """Abilities that both sides of INIT must name."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    HANDLE_KILLPRIV_V2 = 1 << 28
    EXT = 1 << 30  # both messages have a second word of abilities, the upper half of this number
    PASSTHROUGH = 1 << 37


class OpenFlag(IntFlag):
    """Answers to OPEN, OPENDIR and CREATE."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7  # goes with NOFLUSH and DIRECT_IO alone


class Valid(IntFlag):
    """Which fields of SETATTR mean something."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    MTIME = 1 << 5
    FH = 1 << 6
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


GETATTR_FH: Final = 1 << 0
OPEN_KILL_SUIDGID: Final = 1 << 0
WRITE_KILL_SUIDGID: Final = 1 << 2
EXPIRE_ONLY: Final = 1 << 0  # of INVAL_ENTRY: ask again, but leave the entry; since EXPIRE_MINOR
EXPIRE_MINOR: Final = 38

# Headers
IN_HEADER: Final = Struct("=IIQQIIII")  # length, opcode, unique, nodeid, uid, gid, pid, (extensions)
OUT_HEADER: Final = Struct("=IiQ")  # length, negative errno or notice, unique or 0

# Requests, behind the header
INIT_IN: Final = Struct("=IIII")  # major, minor, max_readahead, flags
INIT_EXT_IN: Final = Struct("=16xI")  # upper half of the flags, where the lower one has EXT
FORGET_IN: Final = Struct("=Q")  # lookups
BATCH_FORGET_IN: Final = Struct("=II")  # count, -
FORGET_ONE: Final = Struct("=QQ")  # nodeid, lookups
GETATTR_IN: Final = Struct("=IIQ")  # flags, -, handle
SETATTR_IN: Final = Struct("=IIQQQQQQIIII")  # valid, -, handle, size, -, atime, mtime, ctime, 3 x nanoseconds, mode
MKNOD_IN: Final = Struct("=IIII")  # mode, device, umask, -; then the name
MKDIR_IN: Final = Struct("=II")  # mode, umask; then the name
RENAME_IN: Final = Struct("=Q")  # new parent; then both names
RENAME2_IN: Final = Struct("=QII")  # new parent, flags, -; then both names
OPEN_IN: Final = Struct("=II")  # flags of open(2), flags
CREATE_IN: Final = Struct("=IIII")  # flags of open(2), mode, umask, flags; then the name
READ_IN: Final = Struct("=QQI")  # handle, offset, size; also READDIR and READDIRPLUS
WRITE_IN: Final = Struct("=QQIIQII")  # handle, offset, size, flags, lock owner, -, -; then the bytes
HANDLE_IN: Final = Struct("=Q")  # handle: FLUSH, RELEASE, RELEASEDIR, FSYNC, FSYNCDIR
SETXATTR_IN: Final = Struct("=II")  # size, flags; then the name and the value
GETXATTR_IN: Final = Struct("=II")  # size, -; then the name; also LISTXATTR
FALLOCATE_IN: Final = Struct("=QQQI")  # handle, offset, length, mode
INTERRUPT_IN: Final = Struct("=Q")  # unique of the interrupted request

# Replies, behind the header
INIT_OUT: Final = Struct("=IIIIHHIIHHII24x")
# major, minor, max_readahead, flags, max_background, congestion threshold, max_write, time granularity, max_pages, -,
# upper half of the flags, max_stack_depth
ATTR: Final = Struct("=QQQQQQIIIIIIIIII")
# ino, size, blocks, atime, mtime, ctime, 3 x nanoseconds, mode, nlink, uid, gid, device, block size, flags
ENTRY_OUT: Final = Struct(
    "=QQQQII"
)  # nodeid, generation, entry and attribute timeouts: seconds, nanoseconds; then ATTR
ENTRY_OUT_SIZE: Final = ENTRY_OUT.size + ATTR.size
ATTR_OUT: Final = Struct("=QII")  # timeout: seconds, nanoseconds; then ATTR
OPEN_OUT: Final = Struct("=QII")  # handle, flags, number of the backing file
WRITE_OUT: Final = Struct("=II")  # size, -
GETXATTR_OUT: Final = Struct("=II")  # size, -
STATFS_OUT: Final = Struct("=QQQQQIII28x")  # blocks, free, available, files, free files, block, name, fragment size
DIRENT: Final = Struct("=QQII")  # ino, position of the next entry, size of the name, type; then the name, padded to 8

# Notices
INVAL_INODE_OUT: Final = Struct("=Qqq")  # nodeid, offset (negative: only attributes), length (0: to the end)
INVAL_ENTRY_OUT: Final = Struct("=QII")  # parent, size of the name, flags; then the name and a zero

# ioctl(2) on the descriptor: numbers of _IOW(229, 1, struct fuse_backing_map) and _IOW(229, 2, uint32_t)
BACKING_OPEN: Final = 0x4010E501  # BACKING_MAP; returns the number of the backing file
BACKING_CLOSE: Final = 0x4004E502  # BACKING_ID
BACKING_MAP: Final = Struct("=iI8x")  # descriptor, flags
BACKING_ID: Final = Struct("=I")
