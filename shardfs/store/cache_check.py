"""A look at the cache from outside: whether its index can be used, and what it takes on disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from shardfs.store import cache_folder
from shardfs.store.plain_files import FOLDER

_INDEX: Final = "cache.sqlite"
_WAIT_S: Final = 2.0


def problem(directory: Path) -> str | None:
    """Why the index cannot be used, one line; None when it can, or when there is none yet."""
    path = directory / cache_folder.VERSION / _INDEX
    if not path.exists():
        return None
    try:
        uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S)) as connection:
            [(said,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except (sqlite3.Error, ValueError, UnicodeDecodeError) as error:
        said = str(error)
    return None if said == "ok" else " ".join(str(said).split())


def plain_files(directory: Path) -> set[bytes]:
    """Ids of the contents that have a whole plain file."""
    found = set()
    with suppress(OSError):
        for path in (directory / cache_folder.VERSION / FOLDER).iterdir():
            with suppress(ValueError):
                found.add(bytes.fromhex(path.name))
    return found


def throw_away(directory: Path) -> None:
    """Delete all that the cache holds; processes that use it begin anew.

    Raises:
        OSError: another process is making or throwing away the cache, or the disk refused.
    """
    folder = directory / cache_folder.VERSION
    with cache_folder.lock(folder):
        cache_folder.wipe(folder)


def disk_bytes(directory: Path) -> int:
    """What everything below the directory takes on disk; 0 when there is none."""
    return sum(_blocks(directory))


def _blocks(directory: Path) -> Iterator[int]:
    with suppress(OSError):
        for entry in os.scandir(directory):
            if entry.is_dir(follow_symlinks=False):
                yield from _blocks(Path(entry.path))
            else:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False).st_blocks * 512
