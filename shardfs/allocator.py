"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGEST: Final = 32 << 20  # bytes; glibc takes no greater threshold, and chunks are smaller
_KEPT: Final = 64 << 20  # bytes free at the top of the heap before any go back to the kernel
_PAD: Final = 8 << 20  # bytes by which the heap grows at once
_HEAPS: Final = 2  # each with free memory of its own; one for each thread, as by default, are no faster
_SURPLUS: Final = 32 << 20  # bytes that are not in use before they go back; 15 of these MiB are the interpreter's


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_tell: Any = None  # mallinfo2, once freed memory is kept


def keep_freed_memory(heaps: int = _HEAPS, kept_bytes: int = _KEPT) -> None:
    """Let glibc use freed buffers of chunk size again. Call it once, before the first threads, in programs of our own.

    By default each buffer of 128 KiB and more is mapped, cleared page by page and unmapped again, which takes longer
    than to decode a chunk into it. Elsewhere than on glibc nothing happens.

    Args:
        heaps: how many; what is free in one of them is of no use to another.
        kept_bytes: that each of them keeps free at its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, kept_bytes)
        mallopt(_M_TOP_PAD, _PAD)
        mallopt(_M_ARENA_MAX, heaps)
        global _tell
        _tell = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
        if _tell is not None:
            _tell.restype = _Mallinfo2


def give_back() -> None:
    """Return the memory that nobody uses to the kernel; takes milliseconds. Elsewhere than on glibc nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def give_back_surplus() -> None:
    """`give_back` when much is free between what is in use, in a process that keeps freed memory.

    Buffers of many sizes leave holes: after a gigabyte from a remote 110 MiB of them. To give 32 MiB back and to get
    them again takes 8 ms.
    """
    if _tell is None:
        return
    with suppress(OSError):
        resident, shared = map(int, Path("/proc/self/statm").read_text("ascii").split()[1:3])
        known = _tell()
        if (resident - shared) * os.sysconf("SC_PAGE_SIZE") - known.uordblks - known.hblkhd > _SURPLUS:
            give_back()
