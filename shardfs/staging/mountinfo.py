"""Where file systems of this program are mounted, told without touching any of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

TYPE: Final = b"fuse.shardfs"
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


def own_mounts(table: bytes | None = None) -> frozenset[bytes]:
    """The absolute paths of all mounts of this program that this process sees, dead ones included.

    Asking the kernel's table and not the paths cannot hang on a mount whose daemon hangs.

    Args:
        table: lines as in /proc/self/mountinfo; None reads that file, which only Linux has.
    """
    if table is None:
        try:
            table = Path("/proc/self/mountinfo").read_bytes()
        except OSError:
            return frozenset()
    found = set()
    for line in table.splitlines():
        before, _, behind = line.partition(b" - ")
        if behind.split(b" ", 1)[0] == TYPE:
            found.add(_ESCAPE.sub(lambda m: bytes([int(m[1], 8)]), before.split(b" ")[4]))
    return frozenset(found)


def mount_above(path: bytes, mounts: frozenset[bytes]) -> bytes | None:
    """The mount that an absolute path is, or lies below, by its text alone."""
    return next((m for m in mounts if path == m or path.startswith(m.rstrip(b"/") + b"/")), None)
