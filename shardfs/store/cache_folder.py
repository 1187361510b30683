"""The directory of the cache: private, of one version of the format, made and thrown away by one process at a time.

Spec: docs/design/format/cache.md, "Directory".
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shardfs.store import plain_files
from shardfs.store.cache_index import CacheIndex

_NUMBER: Final = 3  # of the format
VERSION: Final = f"v{_NUMBER}"  # the folder with everything that other versions do not read
_LOCK_TIMEOUT_S: Final = 2.0


def make_private(directory: Path) -> None:
    """Make the directory, or check that it is ours and that nobody else can enter.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        msg = f"the directory belongs to user {status.st_uid}"
        raise PermissionError(msg)
    if status.st_mode & 0o077:
        directory.chmod(0o700)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Held while the index is made or thrown away."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def open_index(folder: Path) -> CacheIndex:
    """The index, and a folder of plain files that agrees with it."""
    (folder / plain_files.FOLDER).mkdir(mode=0o700, exist_ok=True)
    index = CacheIndex(folder / "cache.sqlite")
    if plain_files.needs_sweep(folder, index.files()):
        with index.changing() as change:
            plain_files.sweep(folder, change)
    return index


def remove_old_versions(directory: Path) -> None:
    """Delete what earlier versions of the format left: nothing reads it any more, and nothing counts it."""
    for number in range(1, _NUMBER):
        shutil.rmtree(directory / f"v{number}", ignore_errors=True)


def wipe(folder: Path) -> None:
    """Delete everything but the lock."""
    plain_files.remove_quietly(folder)
    for path in folder.iterdir():
        if path.name not in ("lock", plain_files.FOLDER):
            path.unlink(missing_ok=True)
