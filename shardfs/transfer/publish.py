"""A repository as files that any web server can hand out: packs, two listings, and a page for people.

Whoever reads the folder sees a whole repository at every moment, whatever happens to the process that writes it: packs
come before the listing that names them, listings before refs that need them, and what is not listed any more stays for
those who learned of it before.
"""

from __future__ import annotations

import errno
import html
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from shardfs.errors import ConflictError, FormatError, LockedError, PackCorruptedError, StoreError, UsageError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.progress import Progress, no_progress
from shardfs.store import atomic
from shardfs.store.closure import check_closure
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock
from shardfs.store.receive import settle
from shardfs.store.store import Store

KEEP_S: Final = 3600.0  # how long packs stay that are not listed any more
_ATTEMPTS: Final = 10  # to see a repository that changes all the time between two changes
_LOCK_WAIT_S: Final = 60.0
_BLOCK_SIZE: Final = 1 << 20
_MODE: Final = 0o644  # the web server is another user
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP})


class PublishReport(NamedTuple):
    """What was published.

    Attributes:
        folder: where.
        refs: number of branches and tags that are listed now.
        packs: number of packs that are listed now.
        size: bytes of these.
        new: packs that were not there before.
        new_size: bytes of those.
        linked: how many of the new packs share their bytes with the repository.
        removed: packs that were listed long ago, and are deleted now.
        changed: whether readers see something new.
    """

    folder: Path
    refs: int
    packs: int
    size: int
    new: int
    new_size: int
    linked: int
    removed: int
    changed: bool


class _Seen(NamedTuple):
    """What the listings of a repository say."""

    head: str | None
    refs: Mapping[str, CommitId]
    packs: Mapping[PackId, int]


_NOTHING: Final = _Seen(None, {}, {})


def publish(
    store: Store, folder: Path, *, keep_s: float = KEEP_S, read_only: bool = False, progress: Progress | None = None
) -> PublishReport:
    """Make a folder hold what a store holds now. Files are linked where that is possible, else copied.

    Args:
        store: what is published.
        folder: made when missing; else one that was published to before.
        keep_s: seconds that packs stay after they were listed for the last time.
        read_only: leave the store alone, even what a killed process left half done in it.
        progress: told the packs that are there and all.

    Raises:
        UsageError: the folder holds something else, or the store lacks something that a branch or tag needs.
        LockedError: another process publishes to the folder.
        OutOfSpaceError, ReadOnlyError, StoreError: by the disk; readers see what they saw before.
    """
    target = Layout(folder)
    _check_folder(target)
    if not read_only:
        with suppress(LockedError):  # a writer that is at work does the same
            settle(store, wait_s=0)
    work = _Publication(store, target, progress or no_progress)
    work.check()
    with atomic.writing(f"cannot publish to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with WriterLock(target.lock, _LOCK_WAIT_S).hold("publish"), atomic.writing(f"cannot publish to {folder}"):
        atomic.remove_stale(target.tmp)
        return work.run(keep_s)


class _Publication:
    def __init__(self, store: Store, target: Layout, progress: Progress) -> None:
        self._store = store
        self._target = target
        self._progress = progress
        self._new: dict[PackId, int] = {}
        self._linked = 0
        self._complete: set[CommitId] = set()  # all that they need is here

    def check(self) -> None:
        """See before anything is written that there is something to publish: a refusal leaves nothing behind."""
        with suppress(FileNotFoundError):  # gc or optimize was faster; `run` looks again
            self._check(_seen(self._store.layout), _listed(self._target) or _NOTHING)

    def run(self, keep_s: float) -> PublishReport:
        old = _listed(self._target) or _NOTHING
        for _ in range(_ATTEMPTS):
            seen = _seen(self._store.layout)
            try:
                self._check(seen, old)
                self._bring(seen)
                break
            except FileNotFoundError:  # gc or optimize was faster, and has written other listings
                continue
        else:
            msg = f"{self._store.layout.root} changes all the time; try again"
            raise StoreError(msg)
        if seen != old:
            self._list(seen, old)
        _write(self._target.root / "index.html", _page(seen), self._target)
        removed = self._remove(seen, keep_s)
        sizes, new = sum(seen.packs.values()), sum(self._new.values())
        return PublishReport(
            self._target.root,
            len(seen.refs),
            len(seen.packs),
            sizes,
            len(self._new),
            new,
            self._linked,
            removed,
            seen != old,
        )

    def _check(self, seen: _Seen, old: _Seen) -> None:
        """Everything that refs need must be here: a lazy clone has only what was read."""
        self._complete.update(old.refs.values())
        try:
            for commit in set(seen.refs.values()) - self._complete:
                check_closure(self._store, commit, self._complete)
                self._complete.add(commit)
        except ConflictError as error:
            msg = f"{error.__cause__ or error}; `shardfs fetch --full` gets what a clone lacks"
            raise UsageError(msg) from error

    def _bring(self, seen: _Seen) -> None:
        for count, (pack_id, size) in enumerate(seen.packs.items()):
            self._progress(count, len(seen.packs), "packs")
            path = self._target.pack(pack_id)
            try:
                if path.stat().st_size == size:
                    continue
                path.unlink()  # cut short by something else than this program
            except FileNotFoundError:
                pass
            if self._link(self._store.layout.pack(pack_id), path):
                self._linked += 1
            else:
                self._copy(pack_id, path)
            self._new[pack_id] = size
        self._progress(len(seen.packs), len(seen.packs), "packs")

    def _link(self, source: Path, path: Path) -> bool:
        """Whether the file could be given a second name; not so if the web server could not read it."""
        if source.stat().st_mode & _MODE != _MODE:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, path)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        atomic.sync_dir(path.parent)
        return True

    def _copy(self, pack_id: PackId, path: Path) -> None:
        temp, hasher = atomic.temp_name(self._target.tmp), blake3()
        try:
            with self._store.layout.pack(pack_id).open("rb") as reader, temp.open("xb") as writer:
                while block := reader.read(_BLOCK_SIZE):
                    hasher.update(block)
                    writer.write(block)
                writer.flush()
                os.fchmod(writer.fileno(), _MODE)
                os.fsync(writer.fileno())
            if hasher.digest() != pack_id:
                msg = f"pack {pack_id.hex()[:12]} is damaged; `shardfs verify` says more"
                raise PackCorruptedError(msg)
            atomic.publish(temp, path)
        finally:
            temp.unlink(missing_ok=True)

    def _list(self, seen: _Seen, old: _Seen) -> None:
        """Readers take the refs first: until they see the new ones, all that the old ones need stays listed."""
        both = {**old.packs, **seen.packs}
        refs = ref_format.refs_to_bytes(seen.head, seen.refs)
        if seen.refs == old.refs and seen.head == old.head:
            both = dict(seen.packs)
        _write(self._target.info_packs, _packs(both), self._target)
        _write(self._target.info_refs, refs, self._target)
        _write(self._target.info_packs, _packs(seen.packs), self._target)

    def _remove(self, seen: _Seen, keep_s: float) -> int:
        """Delete packs that were listed so long ago that nobody should want them any more; how many."""
        record = self._target.root / "info" / "unlisted"
        known, now = _unlisted(record), time.time()
        here = {path.stem: path for path in self._target.packs.glob("??/*.pack")}
        listed = {pack_id.hex() for pack_id in seen.packs}
        times = {name: known.get(name, now) for name in here if name not in listed}
        old = {name for name, when in times.items() if when <= now - keep_s}
        for name in old:
            here[name].unlink(missing_ok=True)
        left = {name: when for name, when in times.items() if name not in old}
        if left != known:
            _write(record, json.dumps({"version": 1, "packs": left}, indent=0).encode() + b"\n", self._target)
        return len(old)


def _check_folder(target: Layout) -> None:
    """Refuse a folder that holds something else."""
    try:
        names = {path.name for path in target.root.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"cannot publish to {target.root}: {error.strerror}"
        raise StoreError(msg) from error
    if target.config.exists():
        msg = f"{target.root} is a repository itself; publish into a folder of its own"
        raise UsageError(msg)
    if names - {"packs", "info", "tmp", "lock", "index.html"}:
        msg = f"{target.root} is not empty, and was not published to before"
        raise UsageError(msg)


def _seen(layout: Layout) -> _Seen:
    """A moment of a repository that may be changing: refs that are the same before and after packs were listed."""
    for _ in range(_ATTEMPTS):
        first = _listed(layout)
        if first is not None and first.refs == ref_format.refs_from_bytes(layout.info_refs.read_bytes())[1]:
            return first
    msg = f"{layout.root} changes all the time, or has no listings; `shardfs doctor` says more"
    raise StoreError(msg)


def _listed(layout: Layout) -> _Seen | None:
    """What the listings of a folder say; None: there are none."""
    try:
        head, refs = ref_format.refs_from_bytes(layout.info_refs.read_bytes())
        packs = {pack.id: pack.size for pack in ref_format.packs_from_bytes(layout.info_packs.read_bytes())}
    except (FileNotFoundError, FormatError):
        return None
    return _Seen(head, refs, packs)


def _unlisted(record: Path) -> dict[str, float]:
    """When packs were found not to be listed any more, as Unix time; a record that is lost begins anew."""
    try:
        found = json.loads(record.read_bytes())["packs"]
        return {str(name): float(when) for name, when in found.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _packs(packs: Mapping[PackId, int]) -> bytes:
    return ref_format.packs_to_bytes([PackSize(pack_id, size) for pack_id, size in packs.items()])


def _write(path: Path, data: bytes, target: Layout) -> None:
    """Replace a file, unless it is so already: web servers tell readers when it changed."""
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    temp = atomic.temp_name(target.tmp)
    try:
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())
        atomic.publish(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _page(seen: _Seen) -> bytes:
    """What a browser shows."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td><code>{commit.hex()}</code>\n" for name, commit in sorted(seen.refs.items())
    )
    return (
        "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>A shardfs repository</title>\n"
        "<p>This is a repository of models. Its address is that of this page, without <code>index.html</code>:\n"
        "<pre>shardfs clone ADDRESS\nshardfs mount DIRECTORY --remote ADDRESS</pre>\n"
        f"<table>\n{rows}</table>\n"
    ).encode()
