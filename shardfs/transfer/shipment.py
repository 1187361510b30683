"""What a push has to send: which packs go as they are, and which payloads are packed anew, to the byte."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from shardfs.codecs import registry
from shardfs.formats import pack as pack_format
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import HEADER, Entry
from shardfs.store import packs
from shardfs.store.index import LOCAL, Index, Location


@dataclass(frozen=True, slots=True)
class Parcel:
    """What becomes one pack of the other side.

    Attributes:
        pack: the pack here that goes as it is; None: its payloads are packed anew.
        copies: the payloads, as they are found here.
        alone: ids of those that are encoded anew, without bases.
        size: bytes of the pack; the most that it can have where something is encoded anew.
        after: positions in the shipment of those that hold bases of this one, and have to arrive before it.
    """

    pack: PackId | None
    copies: tuple[Location, ...]
    alone: frozenset[bytes]
    size: int
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Shipment:
    """All that a push sends, in an order in which no base comes late."""

    parcels: tuple[Parcel, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of all packs."""
        return sum(parcel.size for parcel in self.parcels)

    @property
    def chunks(self) -> int:
        """Chunks in them."""
        return sum(copy.entry.kind is Kind.CHUNK for parcel in self.parcels for copy in parcel.copies)

    @property
    def payloads(self) -> int:
        """Chunks and objects in them."""
        return sum(len(parcel.copies) for parcel in self.parcels)

    @property
    def encoded(self) -> int:
        """Chunks that are encoded anew, whose bytes are counted at the most that they can be."""
        return sum(len(parcel.alone) for parcel in self.parcels)


def plan(index: Index, wanted: dict[bytes, Location], alone: Set[bytes] = frozenset()) -> Shipment:
    """How to send `wanted`: local packs of which everything is wanted go whole, the rest is packed anew.

    The same payloads make the same packs again, so that a push which was interrupted goes on with the one it was at.

    Args:
        index: knows what is in the packs.
        wanted: copies by id, bases first.
        alone: ids that must not go as they are.
    """
    parcels = [
        Parcel(pack, tuple(wanted[entry.id] for entry in entries), frozenset(), wanted[entries[0].id].pack_size)
        for pack, entries in _whole(index, wanted, alone)
    ]
    sent = {copy.entry.id for parcel in parcels for copy in parcel.copies}
    parcels += _anew([copy for id_, copy in wanted.items() if id_ not in sent], alone)
    return Shipment(tuple(_with_order(parcels)))


def _whole(index: Index, wanted: dict[bytes, Location], alone: Set[bytes]) -> Iterator[tuple[PackId, list[Entry]]]:
    """Local packs to send whole, bases first; packs that need each other, or what is packed anew, are left out."""
    whole: dict[PackId, list[Entry]] = {}
    for pack in dict.fromkeys(c.pack for c in wanted.values() if c.place == LOCAL):
        entries = index.entries(pack)
        # Another copy may have bases that the other side lacks, or that are too deep there.
        if all(e.id in wanted and wanted[e.id].pack == pack and e.id not in alone for e in entries):
            whole[pack] = entries
    needs = {
        pack: {wanted[base].pack for e in entries for base in e.bases if base in wanted} - {pack}
        for pack, entries in whole.items()
    }
    users: dict[PackId, list[PackId]] = {}
    for pack, others in needs.items():
        for other in others:
            users.setdefault(other, []).append(pack)
    ready = deque(pack for pack, others in needs.items() if not others)
    while ready:
        pack = ready.popleft()
        yield pack, whole[pack]
        for user in users.get(pack, ()):
            needs[user].discard(pack)
            if not needs[user]:
                ready.append(user)


def _anew(copies: Iterable[Location], alone: Set[bytes]) -> Iterator[Parcel]:
    """Packs of payloads, each filled up as a `PackWriter` fills one."""
    batch: list[Location] = []
    size = len(HEADER)
    for copy in copies:
        batch.append(copy)
        size += copy.entry.raw_size if copy.entry.id in alone else copy.entry.stored_size
        if size >= packs.TARGET_SIZE or len(batch) >= packs.TARGET_ENTRIES:
            yield _parcel(batch, alone)
            batch, size = [], len(HEADER)
    if batch:
        yield _parcel(batch, alone)


def _parcel(copies: Sequence[Location], alone: Set[bytes]) -> Parcel:
    here = frozenset(copy.entry.id for copy in copies) & alone
    entries = [_lone(copy.entry) if copy.entry.id in here else copy.entry for copy in copies]
    offset = len(HEADER)
    laid_out: list[Entry] = []
    for entry in sorted(entries, key=lambda e: e.kind is not Kind.CHUNK):  # stable: chunks, then objects
        laid_out.append(entry._replace(offset=offset))
        offset += entry.stored_size
    size = offset + len(pack_format.tail_to_bytes(laid_out, offset))
    return Parcel(None, tuple(copies), here, size)


def _lone(entry: Entry) -> Entry:
    """A chunk as it is at worst once it has no bases any more."""
    return entry._replace(codec=registry.RAW.code, stored_size=entry.raw_size, bases=())


def _with_order(parcels: Sequence[Parcel]) -> Iterator[Parcel]:
    holder = {copy.entry.id: number for number, parcel in enumerate(parcels) for copy in parcel.copies}
    for number, parcel in enumerate(parcels):
        bases = {b for c in parcel.copies if c.entry.id not in parcel.alone for b in c.entry.bases}
        after = {holder[base] for base in bases if base in holder} - {number}
        yield Parcel(parcel.pack, parcel.copies, parcel.alone, parcel.size, tuple(sorted(after)))
