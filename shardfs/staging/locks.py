"""The three locks of an area: session, snapshot and closing. All are `flock`s, so a dead holder holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from shardfs.errors import AreaError, LockedError

_POLL_S: Final = 0.01
SETTLE_S: Final = 1.0  # a release follows its flush within milliseconds unless the daemon hangs


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AreaError(error.errno or errno.EIO, str(path)) from error


def _try(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class SessionLock:
    """Held by the one process that may have unfinished writes. The file says who, for people."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._fd is not None

    def acquire(self, who: str, wait_s: float) -> None:
        """Take the lock.

        Raises:
            LockedError: another process holds it after `wait_s`.
        """
        deadline = time.monotonic() + wait_s
        while not self.try_acquire(who):
            if time.monotonic() >= deadline:
                raise LockedError(self._describe())
            time.sleep(_POLL_S)

    def try_acquire(self, who: str) -> bool:
        """Take the lock if it is free."""
        fd = _open(self._path)
        if not _try(fd, fcntl.LOCK_EX):
            os.close(fd)
            return False
        holder = {"who": who, "pid": os.getpid(), "since": int(time.time())}
        with suppress(OSError):  # the text only informs; a full disk must not keep anybody from his files
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder).encode(), 0)
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def holder(self) -> dict[str, Any]:
        """What the last holder wrote about itself: who, pid, since."""
        try:
            value = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _describe(self) -> str:
        holder = self.holder()
        who, pid = holder.get("who", "another process"), holder.get("pid", "?")
        return f"the staging area {self._path.parent} is in use by {who} (process {pid})"


class SnapshotLock:
    """Shared by snapshots: while any is held, no generation file is deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def share(self) -> int:
        """Hold it; returns a descriptor that the caller closes to let go."""
        fd = _open(self._path)
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def try_exclude(self) -> int | None:
        """Keep snapshots out for a moment, or None when one is alive; the caller closes the descriptor."""
        fd = _open(self._path)
        if _try(fd, fcntl.LOCK_EX):
            return fd
        os.close(fd)
        return None


class ClosingLock:
    """Held by the session while a file was flushed and not yet released.

    close(2) returns after FUSE's flush, and the release follows on its own. Whoever closes a file and commits at
    once must get the new content, so a snapshot waits for this lock, for `SETTLE_S` at most: a flush without a
    release is also what a shell does that passes a descriptor on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._flushed: set[int] = set()
        self._fd: int | None = None

    def flushed(self, ino: int) -> None:
        """A release of this inode is likely to follow."""
        with self._guard:
            if not self._flushed:
                if self._fd is None:
                    self._fd = _open(self._path)
                fcntl.flock(self._fd, fcntl.LOCK_SH)
            self._flushed.add(ino)

    def done(self, ino: int) -> None:
        """It was released, or is written to again."""
        if not self._flushed:
            return
        with self._guard:
            self._flushed.discard(ino)
            if not self._flushed and self._fd is not None:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def wait(self) -> None:
        """Wait until nothing is flushed and unreleased, or for `SETTLE_S`."""
        fd = _open(self._path)
        deadline = time.monotonic() + SETTLE_S
        try:
            while not _try(fd, fcntl.LOCK_EX) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go for good."""
        with self._guard:
            self._flushed.clear()
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
