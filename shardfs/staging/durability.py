"""What survives a power cut, and when an old generation may be deleted.

A file system may bring an unlink to disk before the log record that replaced what was unlinked. So a generation
that was stable is deleted only after the transaction that outdated it is on disk.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from shardfs.errors import AreaError
from shardfs.staging.database import Database, set_fact
from shardfs.staging.generations import FileKey, Generations
from shardfs.staging.reserve import Reserve


class Durability:
    """Durable transactions of an area."""

    def __init__(self, database: Database, files: Generations, reserve: Reserve) -> None:
        self._database = database
        self._files = files
        self._reserve = reserve

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction that survives a power cut, and with it all before it."""
        outdated = self._files.outdated()
        self._files.sync()
        with self._database.write(durable=True) as db:
            yield db
        self._files.discard(outdated)

    def sync(self) -> None:
        """Bring every transaction so far to disk."""
        with self.write() as db:
            set_fact(db, "synced", 1)  # a transaction without a change would not reach the log

    def outdate(self, keys: Iterable[FileKey]) -> None:
        """Rows no longer name these generations: delete them when that is on disk, now if they are many or large."""
        if self._files.outdate(keys):
            with suppress(AreaError):  # the operation itself has succeeded; the next sync tries again
                self.despite_full_disk(self.sync)

    def despite_full_disk(self, work: Callable[[], None]) -> None:
        """Do what frees space or records what was written; on a full disk in the log's room or the reserve's.

        The reserve's comes second: once released, another writer may take it. `work` must leave everything as it was
        when it fails.
        """
        if _done(work) or (self._database.restart_log() and _done(work)):
            return
        self._reserve.release()
        work()
        self._reserve.fill()


def _done(work: Callable[[], None]) -> bool:
    """Whether there was room for it."""
    try:
        work()
    except AreaError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
