"""One store: its packs, index, refs and lock together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from shardfs import config
from shardfs.codecs import registry
from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    AlreadyExistsError,
    IndexCorruptedError,
    PackCorruptedError,
    RepositoryNotFoundError,
    ShardfsError,
    StoreError,
    UnsupportedVersionError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import Kind, PackId, content_id
from shardfs.formats.pack import Entry
from shardfs.formats.ref import DEFAULT_BRANCH, Head, PackSize
from shardfs.store import atomic, packs
from shardfs.store.index import LOCAL, Index, Location, PackTable
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock
from shardfs.store.packs import FinishedPack, PackWriter
from shardfs.store.refs import RefStore

_log = logging.getLogger(__name__)


class Store:
    """A store directory. Safe to share between threads; close() once.

    Attributes:
        layout: where its files are.
        lock: the writer lock; every method that writes takes it.
        index: lookups by id.
        refs: names of commits.
    """

    def __init__(self, root: Path, lock_wait_s: float | None = None) -> None:
        """Open the store at `root`.

        An index that is missing or unreadable is made again from the packs. On a read-only or full disk it is a
        private copy, so that everything can be read.

        Raises:
            RepositoryNotFoundError: no store there. UnsupportedVersionError: made by a newer program.
            StoreError: the disk cannot be read.
        """
        self.layout = Layout(root)
        with atomic.os_errors(f"cannot open {root}"):
            if not self.layout.config.is_file():
                msg = f"no repository at {root}"
                raise RepositoryNotFoundError(msg)
        version = config.read(self.layout.config).get("format")
        if version != config.FORMAT:
            msg = f"{root} has format {version!r}; this program reads format {config.FORMAT}"
            raise UnsupportedVersionError(msg)
        self.lock = WriterLock(self.layout.lock, **({} if lock_wait_s is None else {"wait_s": lock_wait_s}))
        self.refs = RefStore(self.layout, self.lock)
        self._damaged: list[PackCorruptedError] = []
        self.index = self._open_index()

    @classmethod
    def create(cls, root: Path, *, branch: str = DEFAULT_BRANCH) -> Store:
        """Make an empty store at `root`. The settings file is written last: a kill before it leaves no store.

        Raises:
            AlreadyExistsError: there is one. ReadOnlyError, OutOfSpaceError, StoreError: by the disk.
        """
        layout = Layout(root)
        head = Head(ref_format.full_name(ref_format.BRANCHES, branch))
        with atomic.writing(f"cannot create {root}"):
            _check_absent(layout)
            for folder in (root, layout.packs, layout.tmp, root / "refs/heads", root / "refs/tags", root / "info"):
                folder.mkdir(parents=True, exist_ok=True)
        # Without the lock the slower of two creators would empty the listings of a store that is already in use.
        with WriterLock(layout.lock).hold("init"):
            _check_absent(layout)
            atomic.write_bytes(layout.head, head.to_bytes(), layout.tmp)
            atomic.write_bytes(layout.info_refs, ref_format.refs_to_bytes(head.branch, {}), layout.tmp)
            atomic.write_bytes(layout.info_packs, ref_format.packs_to_bytes([]), layout.tmp)
            atomic.write_bytes(layout.config, f"format = {config.FORMAT}\n".encode(), layout.tmp)
        return cls(root)

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    # Reading

    def find(self, id_: bytes) -> list[Location]:
        """Every known copy of an id, local ones first."""
        return self.index.find(id_)

    def read(self, location: Location) -> Encoded:
        """The stored payload at a local location, not decoded.

        Raises:
            PackCorruptedError: the pack is missing or ends early.
        """
        entry = location.entry
        payload = packs.read_payload(self.layout.pack(location.pack), entry)
        return Encoded(entry.codec, payload, entry.bases)

    def reconcile(self) -> bool:
        """Compare the index with the packs on disk and mend the index; returns whether something was mended.

        Called when an id is not found or a payload is not where the index says. Unreadable packs are left alone.
        Takes no lock: a writer may be busy for an hour, and readers never wait.
        """
        impossible = self.index.forget_impossible()
        mended = bool(self.forget_missing_packs()) or impossible > 0
        indexed = self.index.packs(LOCAL)
        for pack_id in packs.list_packs(self.layout):
            path = self.layout.pack(pack_id)
            with suppress(PackCorruptedError):
                pack = packs.read_table(path)
                if indexed.get(pack_id) != pack.size or not self.index_agrees(pack):
                    _log.warning("index: entries of pack %s written again", pack_id.hex()[:12])
                    self.index.mend_pack((pack_id, pack.size, pack.entries), path.exists)
                    mended = True
        return mended

    def forget_missing_packs(self) -> list[PackId]:
        """Take packs out of the index whose files are gone; returns them.

        What they held would else count as stored, and never be stored again when it comes again.
        """
        missing = [pack_id for pack_id in self.index.packs(LOCAL) if self._is_missing(pack_id)]
        if missing:
            _log.warning("%d packs of the index are gone", len(missing))
            self.index.remove_packs(missing)
        return missing

    def _is_missing(self, pack_id: PackId) -> bool:
        try:
            self.layout.pack(pack_id).stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False  # unreadable is not gone
        return False

    def index_agrees(self, pack: FinishedPack) -> bool:
        """Whether the index holds exactly the entries of a pack. A flipped bit may have made anything of a column."""
        try:
            return set(self.index.entries(pack.id)) == pack.indexed()
        except IndexCorruptedError:
            return False

    # Writing

    @contextmanager
    def batch(self, purpose: str = "write") -> Iterator[Batch]:
        """A batch of chunks and objects that becomes durable, all of it, when the block ends without an error.

        Holds the writer lock.

        Raises:
            LockedError, OutOfSpaceError, ReadOnlyError, StoreError: nothing was added.
        """
        with self.lock.hold(purpose):
            self._share_index()
            self.forget_missing_packs()
            batch = Batch(self)
            try:
                yield batch
                batch.publish()
            finally:
                batch.abort()

    def adopt_pack(self, temp: Path, pack_id: PackId) -> FinishedPack:
        """Take in a complete, fsynced and verified pack file in `tmp/`, durably; returns its entries.

        Raises:
            PackCorruptedError: its table cannot be read. OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
        """
        return self.adopt_packs([(temp, pack_id)])[0]

    def adopt_packs(self, files: Iterable[tuple[Path, PackId]]) -> list[FinishedPack]:
        """As `adopt_pack` for several, which are listed once."""
        with self.lock.hold("receive"):
            adopted: list[FinishedPack] = []
            for temp, pack_id in files:
                target = self.layout.pack(pack_id)
                with atomic.writing(f"cannot add pack {pack_id.hex()[:12]}"):
                    atomic.publish(temp, target)
                adopted.append(packs.read_table(target))
            self.record_packs(adopted)
        return adopted

    def record_packs(self, finished: Iterable[FinishedPack]) -> None:
        """Index local packs that are durable, then list them."""
        with self.lock.hold("write"):
            self._share_index()
            self.index.add_packs((p.id, p.size, p.entries) for p in finished)
            self.write_pack_listing()

    def drop_packs(self, pack_ids: Iterable[PackId]) -> None:
        """Delete local packs: first from listing and index, then the files, so that a kill leaves orphans only.

        A reader that found a pack before it was deleted may have indexed it again: the index forgets it once more.
        """
        doomed = list(pack_ids)
        with self.lock.hold("gc"):
            self._share_index()
            self.index.remove_packs(doomed)
            self.write_pack_listing()
            for pack_id in doomed:
                with atomic.os_errors(f"cannot delete pack {pack_id.hex()[:12]}"):
                    self.layout.pack(pack_id).unlink(missing_ok=True)
            self.index.remove_packs(doomed)

    def set_aside(self, pack_ids: Iterable[PackId]) -> Path:
        """Take damaged packs out of the store, and keep their files in a folder of their own, which is returned."""
        damaged, folder = list(pack_ids), self.layout.root / "damaged"
        with self.lock.hold("repair"):
            self._share_index()
            self.index.remove_packs(damaged)
            self.write_pack_listing()
            for pack_id in damaged:
                with atomic.os_errors(f"cannot set pack {pack_id.hex()[:12]} aside"):
                    folder.mkdir(exist_ok=True)
                    self.layout.pack(pack_id).replace(folder / f"{pack_id.hex()}.pack")
            atomic.sync_dir(folder)
            self.index.remove_packs(damaged)
        return folder

    def forget_place(self, place: str) -> None:
        """Forget which packs a remote holds: what counts as stored there is never stored here."""
        with self.lock.hold("remote"):
            self._share_index()
            self.index.remove_packs(self.index.packs(place), place)

    def write_pack_listing(self) -> None:
        """Write `info/packs` again from the index."""
        listed = [PackSize(i, size) for i, size in sorted(self.index.packs(LOCAL).items())]
        atomic.write_bytes(self.layout.info_packs, ref_format.packs_to_bytes(listed), self.layout.tmp)

    def rebuild_index(self) -> list[PackCorruptedError]:
        """Make the index again from the packs of this store alone; returns the packs that could not be read.

        The tables of remote packs are forgotten; the next fetch gets them again.
        """
        with self.lock.hold("doctor"):
            self._share_index()
            self._damaged.clear()
            self.index.rebuild()
            damaged = [*self._damaged]
            self.write_pack_listing()
        return damaged

    def _open_index(self) -> Index:
        path, tmp = self.layout.index, self.layout.tmp
        try:
            return Index(path, tmp, self._tables)
        except IndexCorruptedError as error:
            _log.warning("%s; making it again from the packs", error)
        except StoreError as error:
            _log.info("%s; reading with a copy of the index", error)
            return Index.private(path, self._tables)
        try:
            return Index(path, tmp, self._tables, anew=True)
        except StoreError:
            return Index.private(path, self._tables)

    def _share_index(self) -> None:
        """Before a write: leave a private index for the one that all processes see.

        Raises:
            OutOfSpaceError, ReadOnlyError, StoreError: the disk still does not let it.
        """
        if self.index.is_private:
            self.index = Index(self.layout.index, self.layout.tmp, self._tables)

    def _tables(self) -> Iterator[PackTable]:
        """The tables of all packs that are here; those that cannot be read are remembered in `_damaged`."""
        for pack_id in packs.list_packs(self.layout):
            try:
                pack = packs.read_table(self.layout.pack(pack_id))
            except PackCorruptedError as error:
                _log.warning("%s", error)
                self._damaged.append(error)
            else:
                yield pack_id, pack.size, pack.entries


def _check_absent(layout: Layout) -> None:
    if layout.config.exists():
        msg = f"{layout.root} is a repository already"
        raise AlreadyExistsError(msg)


class Batch:
    """Chunks and objects on their way into packs; made by `Store.batch`.

    Not thread-safe, except `has`, `entry` and `read`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer: PackWriter | None = None
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._finishing: Future[FinishedPack] | None = None  # a full pack, while the next one is being filled
        self._finished: list[FinishedPack] = []
        self._new: dict[bytes, tuple[PackWriter, Entry]] = {}
        self.stored_bytes = 0

    def has(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of `ids` that the store, one of its remotes or this batch holds in a copy not known to be damaged."""
        wanted = set(ids)
        inside = wanted & self._new.keys()
        return inside | self._store.index.has_sound(wanted - inside)

    def put(self, kind: Kind, plaintext: bytes, *, id_: bytes | None = None) -> bytes:
        """Store plaintext unless it is there already; returns its id. `id_` saves hashing it again."""
        id_ = content_id(kind, plaintext) if id_ is None else id_
        if not self.has([id_]):
            self.put_encoded(kind, id_, registry.encode(plaintext), len(plaintext))
        return id_

    def put_encoded(self, kind: Kind, id_: bytes, encoded: Encoded, raw_size: int) -> None:
        """Store an encoded payload; the caller has checked `has`. Does nothing for an id put before."""
        if id_ in self._new:
            return
        if self._writer is None:
            self._writer = PackWriter(self._store.layout)
        entry = self._writer.add(kind, id_, encoded.codec, encoded.payload, raw_size, encoded.bases)
        self._new[id_] = self._writer, entry
        self.stored_bytes += len(encoded.payload)
        if self._writer.is_full:
            self._finish_in_background()

    def entry(self, id_: bytes) -> Entry | None:
        """How this batch stores a chunk; None if it does not. Any thread may ask."""
        found = self._new.get(id_)
        return found[1] if found is not None and found[1].kind is Kind.CHUNK else None

    def read(self, id_: bytes) -> Encoded:
        """The stored payload of a chunk of this batch, published or not. Any thread may ask.

        Raises:
            KeyError: the batch does not store it. PackCorruptedError: its pack cannot be read.
        """
        writer, entry = self._new[id_]
        return Encoded(entry.codec, writer.read(entry), entry.bases)

    def copy(self, entry: Entry, payload: bytes) -> None:
        """Store a payload as it is in another pack."""
        self.put_encoded(entry.kind, entry.id, Encoded(entry.codec, payload, entry.bases), entry.raw_size)

    def publish(self) -> list[FinishedPack]:
        """Make all packs durable, then index them. Called by `Store.batch`; may be called before, to continue."""
        self._wait_for_finished()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._finished.append(writer.finish())
        if self._finished:
            self._store.record_packs(self._finished)
        done, self._finished = self._finished, []
        return done

    def abort(self) -> None:
        """Drop what is not published; full packs that were already renamed stay as orphans for gc."""
        with suppress(ShardfsError):
            self._wait_for_finished()
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _finish_in_background(self) -> None:
        """Let the disk take a full pack while the next one is encoded; one at a time, so that it keeps up."""
        self._wait_for_finished()
        writer, self._writer = self._writer, None
        assert writer is not None
        self._finishing = self._finisher.submit(writer.finish)

    def _wait_for_finished(self) -> None:
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            self._finished.append(finishing.result())
