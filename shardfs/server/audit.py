"""The audit log: one line of JSON for each change and each refusal. Format: docs/design/format/server.md."""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import logging
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from shardfs.errors import ShardfsError
from shardfs.server.folder import PRIVATE, ServerFolder

LIMIT: Final = 16 << 20  # bytes after which a file is put aside
KEPT: Final = 5  # files that were put aside; older ones are deleted

_log = logging.getLogger(__name__)


class AuditLog:
    """Appends to the log of one server. Safe to use in several threads and processes at once.

    Args:
        folder: of the server.
        limit: bytes after which a file is put aside.
    """

    def __init__(self, folder: ServerFolder, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit
        self._lost = 0
        self._guard = threading.Lock()

    def write(self, action: str, **fields: Any) -> None:
        """Append a record. A disk that takes none stops nobody: that records are lost is said, once.

        Args:
            action: what was done or refused.
            fields: what else is known; None is left out.
        """
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {key: value for key, value in fields.items() if value is not None}
        line = json.dumps({"time": moment, "action": action, **known}).encode() + b"\n"
        with self._guard:
            try:
                self._append(line)
            except (OSError, ShardfsError) as error:
                if self._lost == 0:
                    _log.warning("cannot write %s: %s; what is done is not recorded", self._folder.audit, error)
                self._lost += 1
                return
            if self._lost:
                _log.warning("%s is written again; %d records are lost", self._folder.audit, self._lost)
                self._lost = 0

    def _append(self, line: bytes) -> None:
        fd = self._open()
        try:
            start = os.fstat(fd).st_size
            done = 0
            try:
                done = os.write(fd, line)
            finally:
                if done < len(line):
                    os.ftruncate(fd, start)  # half a line would spoil the next one
            if done < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if start + len(line) >= self._limit:
                _put_aside(self._folder.audit)
        finally:
            os.close(fd)

    def _open(self) -> int:
        """The log, locked; another process may have put it aside while this one waited."""
        self._folder.make()
        while True:
            fd = os.open(self._folder.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), self._folder.audit.stat()):
                        return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)


def local_user() -> str:
    """Who runs this process, for the log; behind `sudo`, who asked for it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # no such user: in containers
        return str(os.getuid())


def _put_aside(path: Path) -> None:
    for number in range(KEPT, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        with suppress(FileNotFoundError):
            newer.replace(older)
