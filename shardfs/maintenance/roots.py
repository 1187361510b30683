"""What must not be lost: the commits that names and the recent past of names hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.errors import MalformedError
from shardfs.formats.ids import CommitId, Kind
from shardfs.formats.ref import LogLine
from shardfs.store.store import Store

REFLOG_AGE_S: Final = 30 * 24 * 3600  # a commit that a ref left stays for this long


def named_commits(store: Store) -> set[CommitId]:
    """Commits at refs and at HEAD.

    Raises:
        RefCorruptedError: one of them cannot be read.
    """
    found = set(store.refs.list().values())
    head = store.refs.head_commit()
    return found if head is None else found | {head}


def recent_commits(store: Store, now_s: float) -> set[CommitId]:
    """Commits that reflogs name, deleted refs included, within `REFLOG_AGE_S`, as far as they are here.

    Raises:
        OSError: a log cannot be read.
    """
    found: set[CommitId] = set()
    oldest_us = (now_s - REFLOG_AGE_S) * 1e6
    for path in logs(store):
        for line in path.read_bytes().splitlines():
            with suppress(MalformedError):
                move = LogLine.from_bytes(line)
                if move.time_us >= oldest_us:
                    found |= {commit for commit in (move.old, move.new) if commit is not None}
    here = store.index.find_many(found)
    return {c for c in found if c in here and here[c].entry.kind is Kind.COMMIT}


def logs(store: Store) -> Iterator[Path]:
    """Files of all reflogs."""
    yield from (path for path in sorted((store.layout.root / "logs").rglob("*")) if path.is_file())
