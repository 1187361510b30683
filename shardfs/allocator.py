"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGEST: Final = 32 << 20  # bytes; glibc takes no greater threshold, and chunks are smaller
_KEPT: Final = 64 << 20  # bytes free at the top of the heap before any go back to the kernel
_PAD: Final = 8 << 20  # bytes by which the heap grows at once
_HEAPS: Final = 2  # each with free memory of its own; one for each thread, as by default, are no faster


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


def give_back() -> None:
    """Return the memory that nobody uses to the kernel; takes milliseconds. Elsewhere than on glibc nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
