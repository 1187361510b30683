"""A little disk space kept back, so that a full disk can be emptied: deleting needs a log record, too."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE: Final = 1 << 20  # bytes; a removal logs a handful of 4 KiB pages
LEAST: Final = 64 << 10


class Reserve:
    """A file of `SIZE` bytes that is given up when the disk is full and made again when it no longer is.

    What is given up is needed only in part, so that a smaller one can be made at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Make the file as large as there is room for, up to `SIZE`; never fails."""
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = SIZE
                while not _allocate(fd, size) and size > LEAST:
                    size //= 2
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Give the space back; whether there was any."""
        try:
            size = self._path.stat().st_size
            self._path.unlink()
        except OSError:
            return False
        return size > 0


def _allocate(fd: int, size: int) -> bool:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        return False
    return True
