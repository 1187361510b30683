"""The only durable writes: temp file, fsync, rename, fsync of the directory.

A kill or a power cut at any line leaves the old file or the new one, plus at most a file in `tmp/` that
`remove_stale` deletes later.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from shardfs.errors import OutOfSpaceError, ReadOnlyError, ShardfsError, StoreError

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
    except (FileNotFoundError, ShardfsError):  # an AreaError is an OSError too, and says more
        raise
    except OSError as error:
        msg = f"{what}: {error.strerror or error}"
        if error.errno in _FULL:
            raise OutOfSpaceError(f"{msg}; free some space, nothing stored is lost") from error
        if error.errno in _DENIED:
            raise ReadOnlyError(f"{msg}; the store is not writable") from error
        raise StoreError(msg) from error


@contextmanager
def writing(what: str) -> Iterator[None]:
    """`os_errors` where nothing may be absent: a directory that is gone is a StoreError too."""
    try:
        with os_errors(what):
            yield
    except FileNotFoundError as error:
        msg = f"{what}: {error.filename} is gone"
        raise StoreError(msg) from error


def sync_dir(path: Path) -> None:
    """Make names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temp_name(tmp: Path) -> Path:
    """A fresh name in the `tmp` directory, which is made when missing; its parent is not: that store is gone."""
    tmp.mkdir(exist_ok=True)
    return tmp / f"{os.getpid()}-{os.urandom(8).hex()}"


def publish(temp: Path, target: Path) -> None:
    """Give a file that is already fsynced its final name, durably; replaces an older file of that name."""
    if not target.parent.is_dir():
        temp.stat()  # gone with its store, which must not be made again
        _make_durable_dir(target.parent)
    temp.replace(target)
    sync_dir(target.parent)


def _make_durable_dir(path: Path) -> None:
    """Make a directory and its parents; each new name is durable in the directory that holds it."""
    if not path.is_dir():
        _make_durable_dir(path.parent)
        path.mkdir(exist_ok=True)
        sync_dir(path.parent)


def write_bytes(path: Path, data: bytes, tmp: Path, mode: int = 0o666) -> None:
    """Replace the content of `path` by `data`, durably and all at once.

    Args:
        path: target file; its directory is made when missing.
        data: new content.
        tmp: directory for the unfinished file, on the same file system.
        mode: permissions of the file, less the umask.

    Raises:
        OutOfSpaceError, ReadOnlyError, StoreError: `path` keeps its old content.
    """
    with writing(f"cannot write {path}"):
        temp = temp_name(tmp)
        try:
            with open(temp, "xb", opener=partial(os.open, mode=mode)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            publish(temp, path)
        except BaseException:
            with suppress(OSError):
                temp.unlink()
            raise


def remove_stale(tmp: Path, age_s: float = STALE_AFTER_S) -> int:
    """Delete unfinished writes, files and folders, that nobody wrote to for so long; returns how many."""
    removed = 0
    with suppress(FileNotFoundError):
        for path in tmp.iterdir():
            with suppress(OSError):
                if _last_write(path) < time.time() - age_s:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed += 1
    return removed


def _last_write(path: Path) -> float:
    """Unix time of the last write to a file, or to anything in a folder."""
    return max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
