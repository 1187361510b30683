"""Packs on their way to a remote: built while others are on the wire, each after those that it depends on."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, NamedTuple

from shardfs.codecs import registry
from shardfs.codecs.registry import Encoded
from shardfs.errors import IntegrityError, ShardfsError
from shardfs.formats.ids import PackId
from shardfs.progress import Progress
from shardfs.remotes import meter
from shardfs.remotes.base import Remote
from shardfs.store import atomic, packs
from shardfs.store.index import LOCAL, Location
from shardfs.store.layout import Layout
from shardfs.store.packs import FinishedPack, PackWriter
from shardfs.store.store import Store
from shardfs.transfer.parallel import in_order
from shardfs.transfer.reader import Reader
from shardfs.transfer.scratch import scratch
from shardfs.transfer.shipment import Parcel, Shipment

# Uploads at once: the other side verifies one pack while others come, and a link with a long delay is filled.
_AT_ONCE: Final = 4
_AHEAD: Final = _AT_ONCE * packs.TARGET_SIZE  # bytes of packs that are built and not sent yet
_HASHED_SHARE: Final = 4  # a pack is hashed as a whole when one byte in so many of it is wanted


class _Built(NamedTuple):
    """A parcel as a file."""

    number: int
    path: Path
    pack: FinishedPack


class _StoppedError(ShardfsError):
    """Ends an upload because another one failed."""


def send(
    store: Store,
    reader: Reader,
    remote: Remote,
    shipment: Shipment,
    progress: Progress,
    arrived: Callable[[FinishedPack], object],
) -> None:
    """Send a shipment; every byte is verified before it leaves.

    Args:
        store: what is sent; learns what the remote holds.
        reader: gives payloads that are damaged here or only at another remote.
        remote: where to.
        shipment: what.
        progress: told the bytes sent and to send.
        arrived: called for each pack that the remote has now, one call at a time.

    Raises:
        NotFoundError, IntegrityError: a payload is missing here or damaged in every copy.
        OutOfSpaceError, ReadOnlyError, StoreError: by the disk here. RemoteError: by the remote. What arrived stays.
    """
    with scratch(store.layout, "push") as folder:
        _Sender(store, reader, remote, shipment, progress, arrived, folder).run()


class _Sender:
    def __init__(
        self,
        store: Store,
        reader: Reader,
        remote: Remote,
        shipment: Shipment,
        progress: Progress,
        arrived: Callable[[FinishedPack], object],
        folder: Layout,
    ) -> None:
        self._store = store
        self._remote = remote
        self._parcels = shipment.parcels
        self._progress = progress
        self._arrived = arrived
        self._folder = folder
        self._source = _Payloads(store, reader, shipment, Layout(folder.root / "here"))
        self._ends: list[Future[None]] = [Future() for _ in shipment.parcels]
        self._sent = [0] * len(shipment.parcels)  # bytes of each
        self._sizes = [parcel.size for parcel in shipment.parcels]
        self._room = None if remote.resumes else _Room(packs.TARGET_SIZE)
        self._failure: BaseException | None = None  # the first one; it stops all other uploads
        self._guard = threading.Lock()

    def run(self) -> None:
        """Send all of it; when something fails, what is on its way ends first."""
        self._tell()
        begun: list[Future[None]] = []
        try:
            for _ in in_order(self._put, self._built(begun), threads=_AT_ONCE, ahead=_AHEAD, size=_size):
                pass
        except Exception as error:  # noqa: BLE001 - the first failure is raised, which may be that of a later pack
            failure = self._stop(error)
            wait(begun)
            raise failure from None
        except BaseException as interrupt:  # who presses Ctrl-C does not wait for a silent remote
            self._stop(interrupt)
            raise

    def _built(self, begun: list[Future[None]]) -> Iterator[_Built]:
        for number, parcel in enumerate(self._parcels):
            path, pack = self._build(parcel)
            self._sizes[number] = pack.size
            yield _Built(number, path, pack)
            begun.append(self._ends[number])  # not before: a failure may keep the last one from being handed out

    def _build(self, parcel: Parcel) -> tuple[Path, FinishedPack]:
        if parcel.pack is not None:
            path = self._source.whole(parcel.pack)
            if path is not None:
                entries = tuple(copy.entry for copy in parcel.copies)
                return path, FinishedPack(parcel.pack, parcel.size, entries)
        pack = self._pack_anew(parcel)
        return self._folder.pack(pack.id), pack

    def _pack_anew(self, parcel: Parcel) -> FinishedPack:
        writer = PackWriter(self._folder)
        try:
            for copy in parcel.copies:
                entry = copy.entry
                encoded = self._source.payload(copy, alone=entry.id in parcel.alone)
                writer.add(entry.kind, entry.id, encoded.codec, encoded.payload, entry.raw_size, encoded.bases)
            return writer.finish()
        except BaseException:
            writer.abort()
            raise

    def _put(self, built: _Built) -> None:
        number, pack = built.number, built.pack
        end = self._ends[number]
        try:
            for earlier in self._parcels[number].after:
                self._ends[earlier].result()
            with nullcontext() if self._room is None else self._room.taken(pack.size):
                self._move(number, 0)
                with meter.watch(lambda position: self._move(number, position)):
                    self._remote.put_pack(built.path, pack.id)
            self._store.index.add_packs([(pack.id, pack.size, pack.entries)], place=self._remote.name)
            with atomic.os_errors(f"cannot write in {self._folder.root}"), suppress(FileNotFoundError):
                built.path.unlink()
            self._move(number, pack.size)
            with self._guard:
                self._arrived(pack)
        except BaseException as error:
            self._stop(error)
            end.set_exception(error)
            raise
        end.set_result(None)

    def _stop(self, error: BaseException) -> BaseException:
        """Let all uploads end; returns the failure that came first."""
        with self._guard:
            self._failure = self._failure or error
            return self._failure

    def _move(self, number: int, position: int) -> None:
        if self._failure is not None:
            msg = "another upload failed"
            raise _StoppedError(msg)
        self._sent[number] = position
        self._tell()

    def _tell(self) -> None:
        with self._guard:
            self._progress(sum(self._sent), sum(self._sizes), "sending")


class _Room:
    """Bytes that may be on their way at once, or one pack: after kill -9 they are sent again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait for so much room and have it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


class _Payloads:
    """What packs are made of, verified: by the hash of the pack that it is in, or by its own."""

    def __init__(self, store: Store, reader: Reader, shipment: Shipment, folder: Layout) -> None:
        self._store = store
        self._reader = reader
        self._folder = folder
        self._hashed: dict[PackId, Path | None] = {}  # sound packs here, by another name; None: damaged or gone
        self._wanted: Counter[PackId] = Counter()  # bytes of each pack here that are packed anew
        for parcel in shipment.parcels:
            if parcel.pack is None:
                for copy in parcel.copies:
                    if copy.place == LOCAL:
                        self._wanted[copy.pack] += copy.entry.stored_size

    def whole(self, pack_id: PackId) -> Path | None:
        """A pack under another name, so that a gc in between cannot take it away; None if it is damaged or gone."""
        if pack_id not in self._hashed:
            path = self._folder.pack(pack_id)
            is_sound = False
            with suppress(IntegrityError):
                is_sound = _link(self._store.layout.pack(pack_id), path) and packs.hash_file(path) == pack_id
            self._hashed[pack_id] = path if is_sound else None
        return self._hashed[pack_id]

    def payload(self, copy: Location, *, alone: bool) -> Encoded:
        """A payload as the other side shall have it; errors as `Reader.payload`.

        Args:
            copy: how it is stored here.
            alone: encode it anew, without bases.
        """
        entry = copy.entry
        if not alone and (path := self._sound_pack(copy)) is not None:
            return Encoded(entry.codec, packs.read_payload(path, entry), entry.bases)
        encoded, plaintext = self._reader.payload(entry.kind, entry.id, is_exact=True)
        # Another copy than the one that was planned may have bases that the other side does not have.
        if alone or not set(encoded.bases) <= set(entry.bases):
            encoded = registry.encode(plaintext, registry.dtype_of(encoded))
        return encoded

    def _sound_pack(self, copy: Location) -> Path | None:
        """The pack of a copy once it is known to be sound; None where the payload is better verified by itself.

        To decode a delta takes its bases, which a lazy clone would have to get only to throw them away.
        """
        if copy.place != LOCAL:
            return None
        if copy.pack not in self._hashed:
            pays = self._wanted[copy.pack] * _HASHED_SHARE >= copy.pack_size
            if not pays and self._store.index.has(copy.entry.bases, local=True) >= set(copy.entry.bases):
                return None
        return self.whole(copy.pack)


def _size(built: _Built) -> int:
    return built.pack.size


def _link(source: Path, target: Path) -> bool:
    """Another name for a file; False when it is gone already."""
    with atomic.os_errors(f"cannot write in {target.parent}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            return False
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
    return True
