"""A look at a store and the machine under it: what is wrong, what could be better, and how to mend it.

Ends in bounded time and touches no mount.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardfs.codecs import kernels
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
from shardfs.maintenance import roots
from shardfs.store import atomic, packs
from shardfs.store.index import LOCAL
from shardfs.store.store import Store

LEVELS: Final = ("ok", "note", "warning", "error")
_LOW_SPACE: Final = 1 << 30  # bytes; less does not hold the packs of one commit of a usual model
_FIX: Final = "shardfs doctor --fix"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "ok", "note", "warning" (works, but) or "error" (something does not work or is lost).
        what: one line.
        fix: what to do, a command where there is one; empty when nothing is to be done.
    """

    level: str
    what: str
    fix: str = ""


def diagnose(store: Store, settings: Settings) -> list[Finding]:
    """Everything that there is to say, good and bad, worst first. Changes nothing."""
    findings = [
        *_index(store),
        *_refs(store),
        *_listings(store),
        *_unfinished(store),
        *_lock(store),
        *_disk(store),
        *_cache(settings),
        *_fuse(),
        *_kernels(),
        *_remotes(settings),
    ]
    return sorted(findings, key=lambda f: -LEVELS.index(f.level))


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
        yield Finding("error", str(error), "shardfs verify names what is lost; fetch or copy it from another place")
    indexed = store.index.packs(LOCAL)
    for pack_id in indexed.keys() - tables.keys() - unreadable.keys():
        yield Finding("error", f"pack {pack_id.hex()[:12]} is in the index and its file is missing", _FIX)
    wrong = [table for table in tables.values() if table.id not in indexed or not store.index_agrees(table)]
    if wrong:
        yield Finding("warning", f"the index is wrong about {len(wrong)} packs", _FIX)
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
            yield Finding("error", str(error), _FIX)
            continue
        if commit is not None and not _has(store, commit):
            damaged += 1
            yield Finding("error", f"{name} names commit {commit.hex()[:12]}, which is in no pack", _FIX)
    for name in _lost_refs(store):
        damaged += 1
        yield Finding("warning", f"{name} is missing, its log says that it exists", _FIX)
    try:
        head = store.refs.head()
    except RefCorruptedError as error:
        damaged += 1
        yield Finding("error", str(error), _FIX)
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
        yield Finding("warning", "info/packs does not list the packs that there are", _FIX)
    refs = {name: commit for name in store.refs.names() if (commit := _sound_ref(store, name)) is not None}
    published = {n: c for n, c in refs.items() if not n.startswith(ref_format.REMOTES)}
    try:
        right = ref_format.refs_from_bytes(store.layout.info_refs.read_bytes())[1] == published
    except (OSError, FormatError):
        right = False
    if not right:
        yield Finding("warning", "info/refs does not list the refs that there are", _FIX)


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
    if holder := store.lock.holder():
        yield Finding(
            "note", f"process {holder.get('pid')} on {holder.get('host')} is writing ({holder.get('purpose')})"
        )


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


def _cache(settings: Settings) -> Iterator[Finding]:
    folder = settings.cache_dir
    place = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("warning", f"the cache {folder} cannot be written", "set SHARDFS_CACHE_DIR")
        return
    yield Finding("ok", f"cache {folder}, at most {settings.cache_size / (1 << 30):.1f} GiB")


def _fuse() -> Iterator[Finding]:
    checks: list[tuple[Callable[[], bool], str, str]] = [
        (lambda: os.access("/dev/fuse", os.R_OK | os.W_OK), "/dev/fuse can be opened", "load the kernel module fuse"),
        (lambda: shutil.which("fusermount3") is not None, "fusermount3 is installed", "install the package fuse3"),
    ]
    missing = [(what, remedy) for check, what, remedy in checks if not check()]
    for what, remedy in missing:
        yield Finding("warning", f"mounts will not work: not true that {what}", remedy)
    if not missing:
        yield Finding("ok", f"mounts can be made; Linux {os.uname().release}")


def _kernels() -> Iterator[Finding]:
    name = kernels.active.name
    remedy = "" if name == "compiled" else "install a C compiler and then shardfs again"
    yield Finding("note" if remedy else "ok", f"float codecs use the {name} kernels", remedy)


def _remotes(settings: Settings) -> Iterator[Finding]:
    names = ", ".join(sorted(settings.remotes)) or "none"
    yield Finding("ok", f"remotes: {names}")
