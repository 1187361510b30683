"""What unfinished files held when a descriptor of them was last closed, for a recovery to know.

close(2) returns before the area hears that nobody has the file open: another descriptor may still be there. If the
session dies in between and nobody wrote on, the content is the closed one.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from shardfs.staging.generations import FileKey, Generations


class Closing(NamedTuple):
    """One row of the table `closings`, in the order of its columns."""

    ino: int
    wgen: int
    size: int
    mtime_ns: int
    written_ns: int
    below: bytes | None

    @property
    def key(self) -> FileKey:
        """The generation that was written to."""
        return self.ino, self.wgen

    def is_last(self, files: Generations) -> bool:
        """Whether nothing was written since."""
        return files.stamp(self.key) == (self.size, self.written_ns)


def note(db: sqlite3.Connection, closing: Closing) -> None:
    """Store it in place of an earlier one of the same file."""
    db.execute("INSERT OR REPLACE INTO closings VALUES (?, ?, ?, ?, ?, ?)", closing)


def forget(db: sqlite3.Connection, ino: int) -> None:
    """The content is stable now."""
    db.execute("DELETE FROM closings WHERE ino = ?", (ino,))


def take_all(db: sqlite3.Connection) -> dict[int, Closing]:
    """All of them by inode number, which are forgotten."""
    found = [Closing._make(row) for row in db.execute("SELECT * FROM closings")]
    db.execute("DELETE FROM closings")
    return {closing.ino: closing for closing in found}
