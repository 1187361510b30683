"""The causes of the last errors that programs saw: `.shardfs/errors` and the log."""

from __future__ import annotations

import errno
import logging
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Final

_log = logging.getLogger(__name__)

KEPT: Final = 256  # lines


class Causes:
    """The last errors, newest last. Safe to share between threads."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=KEPT)
        self._guard = threading.Lock()

    def record(self, operation: str, code: int, error: BaseException) -> None:
        """Remember why an operation failed with errno `code`."""
        name = errno.errorcode.get(code, str(code))
        what = " ".join(str(error).split()) or type(error).__name__
        _log.log(logging.ERROR if code == errno.EIO else logging.WARNING, "%s: %s: %s", operation, name, what)
        self.note(f"{operation}: {name}: {what}")

    def note(self, line: str) -> None:
        """Remember what went wrong without an error, because there was a way around it."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._guard:
            self._lines.append(f"{when} {line}\n".encode("utf-8", "backslashreplace"))

    def text(self) -> bytes:
        """All of them, one per line."""
        with self._guard:
            return b"".join(self._lines)
