"""A look at a store and the machine under it: what is wrong, what could be better, and how to mend it.

Ends in bounded time, and touches neither mounts nor networks.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from shardfs.config import Settings
from shardfs.errors import (
    FormatError,
    IndexCorruptedError,
    IntegrityError,
    RefCorruptedError,
    ShardfsError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import PackSize
from shardfs.history.objects import Objects
from shardfs.maintenance import machine, roots
from shardfs.maintenance.findings import FIX, Finding, worst_first
from shardfs.store import atomic, packs
from shardfs.store.index import LOCAL
from shardfs.store.store import Store

_LOW_SPACE: Final = 1 << 30  # bytes; less does not hold the packs of one commit of a usual model
_LONG_S: Final = 3600.0  # for one writer to hold the lock
_LAST_S: Final = 253402300799.0  # the end of the year 9999; a foreign commit may say anything
_AHEAD_S: Final = 300.0  # by how much clocks of well kept machines differ at most


def diagnose(store: Store, settings: Settings) -> list[Finding]:
    """Everything that there is to say, good and bad, worst first. Changes nothing."""
    findings = [
        *_index(store),
        *_refs(store),
        *_listings(store),
        *_unfinished(store),
        *_lock(store),
        *_disk(store),
        *_remotes(settings),
        *machine.diagnose(settings),
    ]
    return worst_first(findings)


def clock(store: Store, objects: Objects) -> Iterator[Finding]:
    """Whether the clock is behind the newest commit: then the next one would look older than its parent."""
    newest = 0
    for name in store.refs.names(ref_format.BRANCHES):
        with suppress(ShardfsError):
            if (tip := store.refs.get(name)) is not None:
                newest = max(newest, objects.commit(tip).time_us)
    behind_s = newest / 1e6 - time.time()
    if behind_s > _AHEAD_S:
        when = datetime.fromtimestamp(min(newest / 1e6, _LAST_S), UTC).isoformat(" ", "seconds")
        yield Finding(
            "warning", f"the clock is behind the newest commit, which was made at {when}", "set the clock: date"
        )


def fix(store: Store, settings: Settings) -> list[Finding]:
    """Mend what can be mended without losing anything; returns what was done, and what is still wrong.

    Raises:
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    done: list[Finding] = []
    with store.lock.hold("doctor"):
        done += _fix_index(store)
        done += _fix_refs(store)
        if any(_listings(store)):
            store.write_pack_listing()
            store.refs.write_listing()
            done.append(Finding("ok", "info/refs and info/packs were written again"))
        if removed := atomic.remove_stale(store.layout.tmp):
            done.append(Finding("ok", f"{removed} unfinished writes were removed"))
    done += machine.fix(settings)
    return done + [f for f in diagnose(store, settings) if f.level == "error"]


# Index and packs


def _index(store: Store) -> Iterator[Finding]:
    problems = store.index.check()
    for problem in problems[:5]:
        yield Finding("error", f"the index is damaged: {problem}", "shardfs doctor --rebuild-index")
    if problems:
        return
    tables, unreadable = packs.read_tables(store.layout)
    for error in unreadable.values():
        yield Finding("error", str(error), "shardfs verify --repair stores it again from other copies")
    indexed = store.index.packs(LOCAL)
    for pack_id in indexed.keys() - tables.keys() - unreadable.keys():
        yield Finding("error", f"pack {pack_id.hex()[:12]} is in the index and its file is missing", FIX)
    wrong = [table for table in tables.values() if table.id not in indexed or not store.index_agrees(table)]
    if wrong:
        yield Finding("warning", f"the index is wrong about {len(wrong)} packs", FIX)
    if not (unreadable or wrong):
        yield Finding("ok", f"index and {len(tables)} packs agree")


def _fix_index(store: Store) -> Iterator[Finding]:
    if store.index.check():
        store.rebuild_index()
        yield Finding(
            "ok", "the index was made again from the packs", "shardfs fetch brings back the tables of remotes"
        )
        return
    if lost := store.forget_missing_packs():
        yield Finding("warning", f"{len(lost)} packs whose files are missing were taken out of the index")
    if store.reconcile():
        yield Finding("ok", "entries of the index were written again from the packs")


# Names


def _refs(store: Store) -> Iterator[Finding]:
    damaged = 0
    for name in store.refs.names():
        try:
            commit = store.refs.get(name)
        except ShardfsError as error:
            damaged += 1
            yield Finding("error", str(error), FIX)
            continue
        if commit is not None and not _has(store, commit):
            damaged += 1
            yield Finding("error", f"{name} names commit {commit.hex()[:12]}, which is in no pack", FIX)
    for name in _lost_refs(store):
        damaged += 1
        yield Finding("warning", f"{name} is missing, its log says that it exists", FIX)
    try:
        head = store.refs.head()
    except RefCorruptedError as error:
        damaged += 1
        yield Finding("error", str(error), FIX)
    else:
        others = store.refs.names(ref_format.BRANCHES)
        if head.branch is not None and others and head.branch not in others:
            yield Finding("note", f"HEAD names {head.branch}, which has no commits", "shardfs switch to another branch")
    if not damaged:
        yield Finding("ok", f"{len(store.refs.names())} refs and HEAD are sound")


def _has(store: Store, commit: CommitId) -> bool:
    with suppress(IntegrityError):
        return bool(store.index.has([commit]))
    return True


def _lost_refs(store: Store) -> list[str]:
    """Refs whose files are gone although their logs do not say that they were deleted."""
    lost = []
    for path in roots.logs(store):
        name = path.relative_to(store.layout.root / "logs").as_posix().removesuffix("~")
        if ref_format.is_ref_name(name) and not store.layout.ref(name).exists():
            lines = store.refs.log(name)
            if lines and lines[0].new is not None:
                lost.append(name)
    return lost


def _fix_refs(store: Store) -> Iterator[Finding]:
    for name in [*store.refs.names(), *_lost_refs(store)]:
        try:
            commit = store.refs.get(name)
            if commit is not None and _has(store, commit):
                continue
        except RefCorruptedError:
            pass
        restored = store.refs.restore(name, lambda known: _has(store, known))
        if restored is None:
            yield Finding("error", f"{name} is damaged and its log knows no commit that is here", f"delete {name}")
        else:
            yield Finding("ok", f"{name} was restored from its log to {restored.hex()[:12]}")
    try:
        store.refs.head()
    except RefCorruptedError:
        head = store.refs.restore_head()
        yield Finding("ok", f"HEAD now names {head.branch}", "shardfs switch changes it")


def _listings(store: Store) -> Iterator[Finding]:
    """The two files for readers that cannot list directories."""
    try:
        right = ref_format.packs_from_bytes(store.layout.info_packs.read_bytes()) == [
            PackSize(i, size) for i, size in sorted(store.index.packs(LOCAL).items())
        ]
    except (OSError, FormatError):
        right = False
    except IndexCorruptedError:
        right = True  # to be judged when there is an index
    if not right:
        yield Finding("warning", "info/packs does not list the packs that there are", FIX)
    refs = {name: commit for name in store.refs.names() if (commit := _sound_ref(store, name)) is not None}
    published = {n: c for n, c in refs.items() if not n.startswith(ref_format.REMOTES)}
    try:
        right = ref_format.refs_from_bytes(store.layout.info_refs.read_bytes())[1] == published
    except (OSError, FormatError):
        right = False
    if not right:
        yield Finding("warning", "info/refs does not list the refs that there are", FIX)


def _sound_ref(store: Store, name: str) -> CommitId | None:
    with suppress(ShardfsError):
        return store.refs.get(name)
    return None


# The machine


def _unfinished(store: Store) -> Iterator[Finding]:
    with suppress(OSError):
        count = len(list(store.layout.tmp.iterdir()))
        if count:
            yield Finding("note", f"{count} unfinished writes in tmp/", "shardfs gc removes them after a day")


def _lock(store: Store) -> Iterator[Finding]:
    if not (holder := store.lock.holder()):
        return
    pid, host, since = holder.get("pid"), holder.get("host"), holder.get("since")
    what = f"process {pid} on {host} is writing ({holder.get('purpose')})"
    held_s = time.time() - since if isinstance(since, int | float) else 0.0
    if held_s < _LONG_S:
        yield Finding("note", what)
    else:  # the kernel drops the lock with its process: there are no stale ones, but processes may hang
        yield Finding("warning", f"{what} for {held_s / 3600:.0f} h", f"on {host}: ps -o etime,stat,cmd {pid}")


def _disk(store: Store) -> Iterator[Finding]:
    root = store.layout.root
    try:
        free = shutil.disk_usage(root).free
    except OSError as error:
        yield Finding("error", f"{root}: {error.strerror}")
        return
    level = "warning" if free < _LOW_SPACE else "ok"
    yield Finding(level, f"{free / (1 << 30):.1f} GiB free at {root}", "free some space" if level != "ok" else "")
    if not os.access(root, os.W_OK):
        yield Finding("warning", f"{root} is not writable by this user", "reading works, commits do not")


def _remotes(settings: Settings) -> Iterator[Finding]:
    names = ", ".join(sorted(settings.remotes)) or "none"
    yield Finding("ok", f"remotes: {names}")
