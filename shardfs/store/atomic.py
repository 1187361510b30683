"""The only durable writes: temp file, fsync, rename, fsync of the directory.

A kill or a power cut at any line leaves the old file or the new one, plus at most a file in `tmp/` that
`remove_stale` deletes later.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shardfs.errors import OutOfSpaceError, ReadOnlyError, StoreError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
STALE_AFTER_S: Final = 24 * 3600  # an unfinished write older than this has no writer any more


@contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Turn OSError into the store's errors; `what` starts the message ("cannot write pack ...").

    Raises:
        OutOfSpaceError, ReadOnlyError, StoreError: by errno. FileNotFoundError passes: absence is the caller's case.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        msg = f"{what}: {error.strerror or error}"
        if error.errno in _FULL:
            raise OutOfSpaceError(f"{msg}; free some space, nothing stored is lost") from error
        if error.errno in _DENIED:
            raise ReadOnlyError(f"{msg}; the store is not writable") from error
        raise StoreError(msg) from error


def sync_dir(path: Path) -> None:
    """Make names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temp_name(tmp: Path) -> Path:
    """A fresh name in the `tmp` directory, which is made when missing."""
    tmp.mkdir(parents=True, exist_ok=True)
    return tmp / f"{os.getpid()}-{os.urandom(8).hex()}"


def publish(temp: Path, target: Path) -> None:
    """Give a file that is already fsynced its final name, durably; replaces an older file of that name."""
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        sync_dir(target.parent.parent)
    temp.replace(target)
    sync_dir(target.parent)


def write_bytes(path: Path, data: bytes, tmp: Path) -> None:
    """Replace the content of `path` by `data`, durably and all at once.

    Args:
        path: target file; its directory is made when missing.
        data: new content.
        tmp: directory for the unfinished file, on the same file system.

    Raises:
        OutOfSpaceError, ReadOnlyError, StoreError: `path` keeps its old content.
    """
    with os_errors(f"cannot write {path}"):
        temp = temp_name(tmp)
        try:
            with temp.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            publish(temp, path)
        except BaseException:
            with suppress(OSError):
                temp.unlink()
            raise


def remove_stale(tmp: Path) -> int:
    """Delete unfinished writes that are older than a day; returns how many."""
    removed = 0
    with suppress(FileNotFoundError):
        for path in tmp.iterdir():
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - STALE_AFTER_S:
                    path.unlink()
                    removed += 1
    return removed
