"""Where the records of a serving process go: a file that stays small, or standard error; text, or JSON for machines."""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shardfs.errors import MountError
from shardfs.mount.operating import Operating

_SIZE: Final = 1 << 20  # bytes
_KEPT: Final = 3  # older files
_PACKAGE: Final = "shardfs"
_TEXT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def begin(operating: Operating, mountpoint: Path) -> None:
    """Write records to where the user wants them.

    Without a log file, and without a level or format that somebody chose, nothing changes: whoever runs in the
    foreground prints records itself. A file is in addition to that, standard error instead of it.

    Raises:
        MountError: the log file cannot be written.
    """
    package, root = logging.getLogger(_PACKAGE), logging.getLogger()
    handler: logging.Handler
    if operating.log is not None:
        handler = _file(operating.log)
        for printing in package.handlers:
            printing.setLevel(package.getEffectiveLevel())
    elif operating.log_level is not None or operating.log_format != "text":
        handler = logging.StreamHandler()
        package.handlers.clear()
    else:
        return
    level = (operating.log_level or "info").upper()
    handler.setFormatter(_Json(mountpoint) if operating.log_format == "json" else _Text())
    handler.setLevel(level)
    root.addHandler(handler)
    root.setLevel(level)
    package.setLevel(level)


def _file(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("ab"):
            pass
    except OSError as error:
        msg = f"the log {path} cannot be written: {error.strerror}; choose another with --log-file"
        raise MountError(msg) from error
    # Tracebacks may hold names that are not UTF-8.
    return logging.handlers.RotatingFileHandler(
        path, maxBytes=_SIZE, backupCount=_KEPT, delay=True, encoding="utf-8", errors="backslashreplace"
    )


class _Text(logging.Formatter):
    """One line a record, whatever names are in it, and those of a traceback."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, with escapes for what is not printable."""
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(map(_visible, line))


class _Json(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def __init__(self, mountpoint: Path) -> None:
        super().__init__()
        self._mountpoint = str(mountpoint)

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        value = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "thread": record.threadName,
            "mountpoint": self._mountpoint,
        }
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value)


def _visible(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
