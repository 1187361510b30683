"""What packs of a remote hold: their tables into the index, and their objects into packs of this store.

Chunks stay where they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

from shardfs.errors import (
    FormatError,
    NotFoundError,
    ObjectCorruptedError,
    PackNotFoundError,
    RemoteError,
    ShardfsError,
)
from shardfs.formats.ids import Kind
from shardfs.formats.pack import Entry
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import Remote, read_pack_tail
from shardfs.store import copies
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer.losses import Losses
from shardfs.transfer.parallel import in_order
from shardfs.transfer.ranges import MAX_REQUEST, extend

_log = logging.getLogger(__name__)

# Bytes from the end of a pack in the first request: trailer, table and the objects of most packs.
TAIL_GUESS: Final = 64 << 10
_PARALLEL: Final = 8  # requests at once; hides the delay of a link, below what servers object to
_AHEAD: Final = 64  # tails that are on their way or wait to be stored: 4 MiB
_FLUSH_SIZE: Final = 32 << 20  # bytes of objects in memory before they are stored

Remotes = Callable[[str], Remote]
"""Opens a remote by name."""


@dataclass
class Learned:
    """What came of one pack.

    Attributes:
        pack: which.
        entries: its table; None when it could not be had.
        payloads: verified payloads of those of its objects that were not here.
        error: why there is no table (`PackNotFoundError`: the remote has the pack no longer; `PackCorruptedError`: it
            is damaged; else an error of the remote), or `ObjectCorruptedError` when an object could not be had.
    """

    pack: PackSize
    entries: list[Entry] | None
    payloads: list[tuple[Entry, bytes]]
    error: ShardfsError | None = None


def no_other(name: str) -> Remote:
    """For callers that know no other remotes."""
    msg = f"no remote {name!r}"
    raise NotFoundError(msg)


class Learner:
    """Learns packs of one remote.

    Args:
        store: where to.
        remote: where from.
        others: opens the other remotes, which are asked for an object that is damaged at this one.
        arrived: told the bytes of each answer.
    """

    def __init__(self, store: Store, remote: Remote, others: Remotes, arrived: Callable[[int], None]) -> None:
        self._store = store
        self._remote = remote
        self._others = others
        self._arrived = arrived
        self._losses = Losses()

    def learn(self, packs: Iterable[PackSize]) -> Iterator[Learned]:
        """Learn packs; gives each once it is known and its objects are durable here, or with the reason why it is not.

        Raises:
            RemoteError: the remote can be asked for nothing. LockedError, OutOfSpaceError, ReadOnlyError, StoreError:
                by the disk.
        """
        waiting: list[Learned] = []
        size = 0
        with closing(in_order(self._read, packs, threads=_PARALLEL, ahead=_AHEAD)) as arriving:
            for one in arriving:
                waiting.append(one)
                size += sum(len(payload) for _, payload in one.payloads)
                if size >= _FLUSH_SIZE:
                    yield from self._keep(waiting)
                    waiting, size = [], 0
        yield from self._keep(waiting)

    def _read(self, pack: PackSize) -> Learned:
        """Table and missing objects of one pack."""
        try:
            with self._losses.patience():
                entries, payloads = self._ask(pack)
        except (RemoteError, PackNotFoundError) as error:
            self._losses.note(pack.id, error)
            return Learned(pack, None, [], self._losses.errors[pack.id])
        good = [found for item in payloads if (found := self._good(pack, *item))]
        bad = [entry for entry, _ in payloads if entry.id not in {found.id for found, _ in good}]
        return Learned(pack, entries, good, self._damage(pack, bad[0]) if bad else None)

    def _ask(self, pack: PackSize) -> tuple[list[Entry], list[tuple[Entry, bytes]]]:
        tail = read_pack_tail(self._remote, pack, TAIL_GUESS)
        self._arrived(len(tail.data))
        objects = [e for e in tail.entries if e.kind is not Kind.CHUNK]
        here = self._store.index.has((e.id for e in objects), local=True)
        payloads: list[tuple[Entry, bytes]] = []
        early: list[Entry] = []
        for entry in objects:
            if entry.id in here:
                continue
            if entry.offset < tail.offset:
                early.append(entry)
            else:
                begin = entry.offset - tail.offset
                payloads.append((entry, tail.data[begin : begin + entry.stored_size]))
        return tail.entries, payloads + self._read_early(pack, early)

    def _read_early(self, pack: PackSize, entries: list[Entry]) -> list[tuple[Entry, bytes]]:
        """Objects that lie before the tail, in ranges."""
        payloads: list[tuple[Entry, bytes]] = []
        while entries:
            span = extend(entries[0], entries[1:], MAX_REQUEST, lambda _: True)
            data = self._remote.read_pack(pack.id, span.start, span.end - span.start) if span.end > span.start else b""
            self._arrived(len(data))
            payloads += [(e, data[e.offset - span.start : e.offset - span.start + e.stored_size]) for e in span.entries]
            entries = entries[len(span.entries) :]
        return payloads

    def _good(self, pack: PackSize, entry: Entry, payload: bytes) -> tuple[Entry, bytes] | None:
        """A payload that is what its id says: this one, else one of another remote; None when there is none.

        What is missing keeps back the refs that need it, and no others; it is asked for again by the next fetch.
        """
        try:
            copies.verify_object(entry, payload)
        except FormatError as error:
            _log.warning("%s, pack %s: %s", self._remote.name, pack.id.hex()[:12], error)
            return self._from_others(entry)
        return entry, payload

    def _damage(self, pack: PackSize, entry: Entry) -> ShardfsError:
        where = f"pack {pack.id.hex()[:12]} of {self._remote.url}"
        return ObjectCorruptedError(f"{entry.kind.name.lower()} {entry.id.hex()[:12]} in {where} is damaged")

    def _from_others(self, wanted: Entry) -> tuple[Entry, bytes] | None:
        for place, pack_id, _, entry in self._store.index.find(wanted.id):
            if place not in (LOCAL, self._remote.name):
                with suppress(RemoteError, NotFoundError, FormatError):
                    payload = self._others(place).read_pack(pack_id, entry.offset, entry.stored_size)
                    self._arrived(len(payload))
                    copies.verify_object(entry, payload)
                    return entry, payload
        return None

    def _keep(self, learned: list[Learned]) -> list[Learned]:
        """Store objects durably, and only then remember that the remote's packs are known."""
        if any(one.payloads for one in learned):
            with self._store.batch("fetch") as batch:
                for one in learned:
                    for entry, payload in one.payloads:
                        batch.copy(entry, payload)
        known = [(one.pack.id, one.pack.size, one.entries) for one in learned if one.entries is not None]
        self._store.index.add_packs(known, place=self._remote.name)
        return learned
