"""INIT, the first message: what both sides can do, and what they will."""

from __future__ import annotations

from typing import Final, NamedTuple

from shardfs.errors import MountError
from shardfs.mount.kernel.messages import (
    EXPIRE_MINOR,
    INIT_EXT_IN,
    INIT_IN,
    INIT_OUT,
    MAJOR,
    MINOR,
    OLDEST_MINOR,
    Init,
)
from shardfs.mount.options import EngineOptions

MAX_SIZE: Final = 1 << 20  # bytes of one read or write; more needs a changed sysctl fs.fuse.max_pages_limit
_SAFE_SIZE: Final = 128 << 10  # what the kernel takes without MAX_PAGES
_PAGE: Final = 4096
_MAX_BACKGROUND: Final = 64  # readahead requests in flight
_WANTED: Final = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.AUTO_INVAL_DATA
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.POSIX_ACL  # there are none, but so the kernel remembers that
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.HANDLE_KILLPRIV_V2
)


class Agreement(NamedTuple):
    """What was agreed."""

    abilities: Init
    can_expire: bool  # names can be looked up again without cutting off who works below them
    answer: bytes


def agree(body: bytes | memoryview, options: EngineOptions) -> Agreement:
    """The answer to INIT.

    Raises:
        MountError: the kernel is too old.
    """
    major, minor, readahead, offered = INIT_IN.unpack_from(body)
    if (major, minor) < (MAJOR, OLDEST_MINOR):
        msg = f"the kernel speaks FUSE {major}.{minor}, not {MAJOR}.{OLDEST_MINOR}; mount with --engine libfuse"
        raise MountError(msg)
    if offered & Init.EXT and len(body) >= INIT_EXT_IN.size:
        offered |= INIT_EXT_IN.unpack_from(body)[0] << 32
    else:
        offered &= ~Init.PASSTHROUGH
    agreed = Init(0) if options.safe else Init(offered) & _wanted(options)
    size = MAX_SIZE if Init.MAX_PAGES in agreed else _SAFE_SIZE
    depth = (2 if options.stacked else 1) if Init.PASSTHROUGH in agreed else 0
    answer = INIT_OUT.pack(
        MAJOR,
        MINOR,
        max(readahead, size),
        agreed & 0xFFFFFFFF,
        _MAX_BACKGROUND,
        _MAX_BACKGROUND * 3 // 4,
        size,
        1,
        size // _PAGE,
        0,
        agreed >> 32,
        depth,
    )
    return Agreement(agreed, minor >= EXPIRE_MINOR, answer)


def _wanted(options: EngineOptions) -> Init:
    return _WANTED | Init.EXT | Init.PASSTHROUGH if options.passthrough else _WANTED
