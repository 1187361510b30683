"""The writer lock of a store: one writer at a time, across threads and processes; readers never ask.

The lock is a `flock` on the file `lock`: the kernel drops it when its holder dies, so it is never stale. The
file's content says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from shardfs.errors import LockedError
from shardfs.store.atomic import writing

WAIT_S: Final = 120.0  # longer than any commit of this machine class; then the holder is named
_POLL_S: Final = 0.02


class WriterLock:
    """Exclusive and reentrant per thread. Safe to share between threads."""

    def __init__(self, path: Path, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._wait_s = wait_s
        self._held = threading.local()
        _instances.add(self)

    @contextmanager
    def hold(self, purpose: str, wait_s: float | None = None) -> Iterator[None]:
        """Hold the lock for the block.

        Args:
            purpose: one word for other processes to show ("commit", "gc").
            wait_s: seconds to wait for another holder; None for the default.

        Raises:
            LockedError: still held by another after `wait_s`. ReadOnlyError: the store is not writable.
        """
        depth = getattr(self._held, "depth", 0)
        if depth == 0:
            self._held.fd = self._acquire(purpose, self._wait_s if wait_s is None else wait_s)
        self._held.depth = depth + 1
        try:
            yield
        finally:
            depth = getattr(self._held, "depth", 0)  # 0 in a child that was forked inside the block
            if depth:
                self._held.depth = depth - 1
            if depth == 1:
                _release(self._held.fd)

    def leave_to_parent(self) -> None:
        """In a forked child: what the parent holds, the child does not."""
        fd = getattr(self._held, "fd", None) if getattr(self._held, "depth", 0) else None
        self._held = threading.local()
        if fd is not None:
            os.close(fd)

    def holder(self) -> dict[str, Any] | None:
        """Who holds the lock now (pid, host, purpose, since), or None when it is free."""
        try:
            fd = os.open(self._path, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _read_holder(fd)
        finally:
            os.close(fd)
        return None

    def _acquire(self, purpose: str, wait_s: float) -> int:
        deadline = time.monotonic() + wait_s
        while True:
            with writing(f"cannot lock {self._path}"):
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    self._wait_for(fd, deadline)
                    if self._is_current(fd):
                        _write_holder(fd, purpose)
                        return fd
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)

    def _is_current(self, fd: int) -> bool:
        """Whether `fd` is still the lock file: somebody may have deleted it, and somebody else made a new one."""
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

    def _wait_for(self, fd: int, deadline: float) -> None:
        while not _try_flock(fd):
            if time.monotonic() >= deadline:
                raise LockedError(self._describe(_read_holder(fd)))
            time.sleep(_POLL_S)

    def _describe(self, holder: dict[str, Any]) -> str:
        if not holder:
            return f"{self._path.parent} is locked by another process; try again when it has finished"
        since = time.strftime("%H:%M:%S", time.localtime(holder.get("since", 0)))
        return (
            f"{self._path.parent} is locked by process {holder.get('pid')} on {holder.get('host')} "
            f"({holder.get('purpose')}, since {since}); try again when it has finished"
        )


def _release(fd: int) -> None:
    """Unlock, not only close: a child that was forked meanwhile holds a copy of `fd`, which would keep the lock."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(fd: int, purpose: str) -> None:
    """Best effort: the lock itself is the flock, the text only informs (a full disk must not stop gc)."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    value = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "purpose": purpose,
        "program": program,
        "since": int(time.time()),
    }
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(value).encode(), 0)
    except OSError:
        return


def _read_holder(fd: int) -> dict[str, Any]:
    try:
        value = json.loads(os.pread(fd, 4096, 0) or b"{}")
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


_instances: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    for instance in list(_instances):
        instance.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
