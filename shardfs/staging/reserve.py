"""A little disk space kept back, so that a full disk can be emptied: deleting needs a log record, too."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE: Final = 1 << 20  # bytes; a removal logs a handful of 4 KiB pages


class Reserve:
    """A file of `SIZE` bytes that is given up when the disk is full and made again when it no longer is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Make the file if it is not there and there is room; never fails."""
        if self._path.exists():
            return
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SIZE)
            except OSError:
                self._path.unlink()
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Give the space back; whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
