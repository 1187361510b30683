"""Putting an area in order after its session died. Crash states: docs/design/staging.md."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shardfs.history.paths import show_some
from shardfs.staging import closings
from shardfs.staging.database import Database, fact, rows_where, set_fact, update
from shardfs.staging.generations import FileKey, Generations
from shardfs.staging.nodes import PathKey, Row
from shardfs.staging.rebase import drop_settled
from shardfs.staging.view import path_of

_log = logging.getLogger(__name__)

SWEEP: Final = "sweep"  # fact: 1 = files/ may hold files that no row names


@dataclass(slots=True)
class Recovery:
    """What a recovery found.

    Attributes:
        dropped: files whose unfinished new content was dropped in favour of the stable one.
        kept: new files that were never closed, kept with the bytes that had been written.
        cut: files that are shorter than when they were closed (a power cut, nothing synced); their rest is lost.
    """

    dropped: list[PathKey] = field(default_factory=list)
    kept: list[PathKey] = field(default_factory=list)
    cut: list[PathKey] = field(default_factory=list)

    def log(self, directory: Path) -> None:
        """Tell people, in the log of whoever opened the area in `directory`."""
        for level, paths, what in (
            (logging.WARNING, self.cut, "the machine failed before a sync, and bytes are missing"),
            (logging.WARNING, self.dropped, "writing was not finished, the last closed content is back"),
            (logging.INFO, self.kept, "never closed, what had been written is kept"),
        ):
            if paths:
                _log.log(level, "staging area %s: %s: %s", directory, what, show_some(paths))


def recover(database: Database, files: Generations) -> Recovery:
    """Finish or undo what a dead session left, and forget settled rows. The caller holds the session lock."""
    report = Recovery()
    with database.read() as db:
        sweep = fact(db, SWEEP) == 1
        idle = not sweep and db.execute("SELECT 1 FROM nodes WHERE settled = 1 LIMIT 1").fetchone() is None
    if idle:
        return report
    wanted: set[FileKey] = set()
    with database.write(durable=True) as db:
        closed = closings.take_all(db)
        for row in rows_where(db, "wgen IS NOT NULL"):
            path, closing = path_of(db, row), closed.get(row.ino)
            if closing is not None and closing.wgen == row.wgen and closing.is_last(files):
                _adopt(db, files, row)
                update(db, row.ino, mtime_ns=closing.mtime_ns, below=closing.below)
            elif row.live:
                report.kept += [path] if path and _wrote_on(files, row) else []
                _adopt(db, files, row)
            elif row.stable:
                report.dropped += [path] if path else []
                update(db, row.ino, wgen=None, version=row.version + 1)
            else:
                report.kept += [path] if path else []
                _adopt(db, files, row)
        if sweep:
            for row in rows_where(db, "gen IS NOT NULL"):
                wanted.add((row.ino, row.gen or 0))
                if _measure(db, files, row):
                    path = path_of(db, row)
                    report.cut += [path] if path else []
        drop_settled(db)
    if sweep and files.discard(files.keys() - wanted):
        with database.write() as db:
            set_fact(db, SWEEP, 0)
    return report


def _adopt(db: sqlite3.Connection, files: Generations, row: Row) -> None:
    """A file keeps what was written to its unfinished generation."""
    key = (row.ino, row.wgen or 0)
    if files.is_written(key):
        key = files.copy(key, row.last_gen + 1)
    size = files.size(key) or 0
    gen, content = (key[1], None) if size else (None, b"")
    columns = {"gen": gen, "content": content, "size": size, "last_gen": max(row.last_gen, key[1])}
    update(db, row.ino, **columns, wgen=None, live=0, version=row.version + 1)


def _wrote_on(files: Generations, row: Row) -> bool:
    """Whether the kernel wrote to a file after its fsync."""
    return files.stamp((row.ino, row.wgen or 0)) != (row.size, row.mtime_ns)


def _measure(db: sqlite3.Connection, files: Generations, row: Row) -> bool:
    """Make file and row agree on the size; whether bytes are missing."""
    key = (row.ino, row.gen or 0)
    size = files.size(key) or 0
    if size > row.size:
        files.cut(key, row.size)  # appends that were never closed
    if size >= row.size:
        return False
    gen, content = (row.gen, None) if size else (None, b"")
    update(db, row.ino, gen=gen, content=content, size=size, below=row.below if size else None, version=row.version + 1)
    return True
