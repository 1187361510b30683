"""The kernel's table of mounts: asked instead of the mounts themselves, which may hang."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from shardfs.errors import MountError

TYPE: Final = "fuse.shardfs"
_TABLE: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


class MountRow(NamedTuple):
    """One mount: where, its device ("0:39"), the type and source that the daemon gave."""

    mountpoint: Path
    device: str
    type: str
    source: str

    @property
    def connection(self) -> int:
        """The number of a FUSE connection in /sys/fs/fuse/connections."""
        return int(self.device.partition(":")[2])


def parse(table: bytes) -> list[MountRow]:
    """The rows of a mountinfo table, oldest first; lines of another form are left out."""
    rows = []
    for line in table.splitlines():
        before, dash, behind = line.partition(b" - ")
        left, right = before.split(b" "), behind.split(b" ")
        if dash and len(left) >= 6 and len(right) >= 2:
            rows.append(MountRow(Path(_text(left[4])), _text(left[2]), _text(right[0]), _text(right[1])))
    return rows


def rows() -> list[MountRow]:
    """All mounts that this process sees, oldest first.

    Raises:
        MountError: there is no such table: not Linux, or no /proc.
    """
    try:
        return parse(_TABLE.read_bytes())
    except OSError as error:
        msg = f"{_TABLE} cannot be read: {error.strerror}; mounts need Linux with /proc"
        raise MountError(msg) from error


def top_row(mountpoint: Path) -> MountRow | None:
    """What is mounted at exactly this absolute path, the topmost one; None when nothing is."""
    found = [row for row in rows() if row.mountpoint == mountpoint]
    return found[-1] if found else None


def is_stacked(folder: Path) -> bool:
    """Whether a directory, existing or not, lies on an overlayfs; False where no table says."""
    try:
        found = rows()
    except MountError:
        return False
    above = folder.absolute()
    while not above.is_dir() and above != above.parent:
        above = above.parent
    device = above.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    return any(row.device == name and row.type == "overlay" for row in found)


def own_mounts() -> frozenset[bytes]:
    """Where file systems of this program are mounted, dead ones included; empty where no table says."""
    try:
        return frozenset(os.fsencode(row.mountpoint) for row in rows() if row.type == TYPE)
    except MountError:
        return frozenset()


def mount_above(path: bytes, mounts: frozenset[bytes]) -> bytes | None:
    """The mount that an absolute path is, or lies below, by its text alone."""
    return next((m for m in mounts if path == m or path.startswith(m.rstrip(b"/") + b"/")), None)


def _text(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
