"""The door for packs and refs that come from outside: nothing is let in that does not verify.

Used by every remote that can write to a store: the HTTP server and the directory remote.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from blake3 import blake3

from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    AlreadyExistsError,
    ChunkCorruptedError,
    ChunkNotFoundError,
    ConflictError,
    FormatError,
    LockedError,
    MalformedError,
    PackCorruptedError,
    RefCorruptedError,
)
from shardfs.formats import pack as pack_format
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind, PackId
from shardfs.formats.manifest import Manifest
from shardfs.formats.pack import HEADER, TRAILER_SIZE, Entry
from shardfs.formats.ref import BRANCHES, TAGS, Head, packs_from_bytes
from shardfs.formats.tree import Tree
from shardfs.store import packs
from shardfs.store.closure import check_closure
from shardfs.store.layout import Layout
from shardfs.store.packs import FinishedPack
from shardfs.store.plaintext import Copy, PlaintextSource, stored_copies
from shardfs.store.store import Store

_READ_SIZE = 1 << 20  # bytes


def open_or_create(root: Path, lock_wait_s: float | None = None) -> Store:
    """The store at `root`, made when there is none.

    Raises:
        ReadOnlyError, OutOfSpaceError, StoreError: it cannot be made.
    """
    if not Layout(root).config.exists():
        with suppress(AlreadyExistsError):
            Store.create(root).close()
    return Store(root, lock_wait_s)


def settle(store: Store, wait_s: float | None = None) -> None:
    """Finish what a process that was killed left half done: packs that are not indexed, listings that lag behind.

    Whoever sends a pack again is told that it is there, and readers see only what is listed; so both must be true
    before a ref moves.

    Args:
        store: whose packs and listings.
        wait_s: seconds to wait for another writer; None for the store's own.

    Raises:
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    with store.lock.hold("receive", wait_s):
        _settle_packs(store)
        store.refs.write_listing()


def _settle_packs(store: Store) -> None:
    on_disk, indexed = packs.list_packs(store.layout), store.index.packs()
    orphans: list[FinishedPack] = []
    for pack_id in on_disk.keys() - indexed.keys():
        with suppress(PackCorruptedError):
            orphans.append(packs.read_table(store.layout.pack(pack_id)))
    if indexed.keys() - on_disk.keys():
        store.forget_missing_packs()
    if orphans:
        store.record_packs(orphans)
    elif _listed_packs(store) != store.index.packs():
        store.write_pack_listing()


def _listed_packs(store: Store) -> dict[PackId, int] | None:
    try:
        return {p.id: p.size for p in packs_from_bytes(store.layout.info_packs.read_bytes())}
    except (OSError, FormatError):
        return None


def receive_pack(store: Store, temp: Path, pack_id: PackId) -> FinishedPack:
    """Verify every byte of a pack file in the store's `tmp/` and take it in, durably.

    A pack that is there already replaces its older copy, which heals damage. `temp` is gone afterwards, except when
    another process holds the lock: then it is good for another attempt.

    Raises:
        MalformedError: the content is not what its id and table promise. UnsupportedVersionError: a codec or version
            that this program does not know. ConflictError: a base chunk is neither in the pack nor in the store.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    is_useful = False
    try:
        _Received(store, temp, pack_id).verify()
        return store.adopt_pack(temp, pack_id)
    except LockedError:
        is_useful = True
        raise
    finally:
        if not is_useful:
            with suppress(OSError):
                temp.unlink(missing_ok=True)


def receive_ref(store: Store, name: str, old: CommitId | None, new: CommitId | None, *, by: str) -> None:
    """Move a branch or tag, after making sure that all it will name is here.

    The first branch of an empty store becomes its HEAD. A ref that is at `new` already counts as moved: the answer to
    an earlier attempt was lost.

    Args:
        store: where.
        name: full ref name below refs/heads/ or refs/tags/.
        old: where the ref must be now; None: must not exist.
        new: where it goes; None: delete it.
        by: who moves it, for the reflog.

    Raises:
        RefChangedError: the ref is not at `old`. ConflictError: something below `new` is missing; the message names it.
        MalformedError: not the name of a branch or tag.
    """
    if not name.startswith((BRANCHES, TAGS)):
        msg = f"only branches and tags can be moved from outside, not {name[:80]!r}"
        raise MalformedError(msg)
    with store.lock.hold("receive"):
        _settle_packs(store)
        current = store.refs.get(name)
        if current == new != old:
            store.refs.write_listing()
            return
        # Moving first would be undone by nobody after a kill; the check reads only what no ref names yet.
        if new is not None and current == old:
            check_closure(store, new)
        store.refs.move(name, old, new, author=by, message="pushed")
        with suppress(RefCorruptedError):  # a damaged HEAD is the doctor's
            if new is not None and name.startswith(BRANCHES) and store.refs.head_commit() is None:
                store.refs.set_head(Head(name))


class _Received:
    """A pack file that nobody trusts yet."""

    def __init__(self, store: Store, path: Path, pack_id: PackId) -> None:
        self._store = store
        self._path = path
        self._pack_id = pack_id

    def verify(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._verify_id(fd)
            entries = _read_entries(fd)
            inside = {entry.id: entry for entry in entries}

            def copies_of(id_: bytes, kind: Kind) -> list[Copy]:
                known = stored_copies(self._store, id_, kind)
                entry = inside.get(id_)
                return (
                    known
                    if entry is None or entry.kind is not kind
                    else [(entry, partial(_payload, fd, entry)), *known]
                )

            source = PlaintextSource(copies_of)
            for entry in entries:
                _check_object(entry.kind, source.decode(entry, _payload(fd, entry)))
        except (ChunkNotFoundError, ChunkCorruptedError) as error:
            msg = f"pack {self._pack_id.hex()[:12]} needs a base that cannot be read here: {error}; push it first"
            raise ConflictError(msg) from error
        finally:
            os.close(fd)

    def _verify_id(self, fd: int) -> None:
        hasher = blake3()
        offset = 0
        while block := os.pread(fd, _READ_SIZE, offset):
            hasher.update(block)
            offset += len(block)
        if hasher.digest() != self._pack_id:
            msg = f"content does not match pack id {self._pack_id.hex()[:12]}"
            raise MalformedError(msg)


def _payload(fd: int, entry: Entry) -> Encoded:
    return Encoded(entry.codec, os.pread(fd, entry.stored_size, entry.offset), entry.bases)


def _read_entries(fd: int) -> list[Entry]:
    size = os.fstat(fd).st_size
    pack_format.parse_header(os.pread(fd, len(HEADER), 0))
    trailer = pack_format.parse_trailer(os.pread(fd, TRAILER_SIZE, max(0, size - TRAILER_SIZE)), size)
    return pack_format.parse_table(os.pread(fd, trailer.table_size, trailer.table_offset), trailer)


def _check_object(kind: Kind, plaintext: bytes) -> None:
    """Objects must follow their formats: hostile names are refused here, not when somebody checks out."""
    if kind is Kind.MANIFEST:
        Manifest.from_bytes(plaintext)
    elif kind is Kind.TREE:
        Tree.from_bytes(plaintext)
    elif kind is Kind.COMMIT:
        Commit.from_bytes(plaintext)
