"""What must not be lost: what names, the recent past of names, and staging areas reach."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.errors import MalformedError, StoreError
from shardfs.formats.ids import CommitId, Kind, PackId
from shardfs.formats.ref import LogLine
from shardfs.history.objects import Objects
from shardfs.store.packs import FinishedPack
from shardfs.store.store import Store
from shardfs.transfer import plan
from shardfs.transfer.plan import Reachable

REFLOG_AGE_S: Final = 30 * 24 * 3600  # a commit that a ref left stays for this long


def needed(store: Store, objects: Objects, keep: Iterable[tuple[Kind, bytes]] = ()) -> Reachable:
    """What refs, HEAD, recent reflogs and `keep` reach; the bases of deltas are not in it.

    Raises:
        RefCorruptedError: a name cannot be read. StoreError: a reflog cannot be read.
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object on the way cannot be read.
    """
    try:
        commits = named_commits(store) | recent_commits(store, time.time())
    except OSError as error:
        msg = f"a reflog cannot be read: {error}; nothing was deleted"
        raise StoreError(msg) from error
    return plan.closure(objects, commits, keep)


def with_bases(ids: Iterable[bytes], tables: Iterable[FinishedPack]) -> set[bytes]:
    """`ids` and all chunks that some copy of them in one of the packs depends on."""
    bases: dict[bytes, set[bytes]] = {}
    for table in tables:
        for entry in table.entries:
            if entry.bases:
                bases.setdefault(entry.id, set()).update(entry.bases)
    found = set(ids)
    queue = [id_ for id_ in found if id_ in bases]
    while queue:
        for base in bases.get(queue.pop(), ()):
            if base not in found:
                found.add(base)
                queue.append(base)
    return found


def coming(tables: Mapping[PackId, FinishedPack], young: Iterable[PackId]) -> set[bytes]:
    """What chunks in young packs depend on: when a push moves its ref, what it brought must be whole."""
    return with_bases({base for pack in young for e in tables[pack].entries for base in e.bases}, tables.values())


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
