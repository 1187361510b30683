"""What a push has to send: which packs go as they are, and which payloads are packed anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.errors import ChunkNotFoundError, ObjectNotFoundError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.store.chains import depth_of
from shardfs.store.index import LOCAL, Index, Location


@dataclass(frozen=True)
class Shipment:
    """Payloads to send.

    Attributes:
        packs: local packs to send whole, with their entries; each after the packs that hold its bases.
        loose: the other payloads, bases first.
        bytes: stored bytes of both.
    """

    packs: dict[PackId, list[Entry]]
    loose: list[tuple[Kind, bytes]]
    bytes: int

    def __len__(self) -> int:
        return sum(map(len, self.packs.values())) + len(self.loose)


def find_all(index: Index, wanted: Iterable[tuple[Kind, bytes]]) -> dict[bytes, Location]:
    """A copy of each wanted id, in the order of `wanted`, local ones where there are any.

    Raises:
        ChunkNotFoundError, ObjectNotFoundError: an id is in no known pack.
    """
    items = list(wanted)
    known = index.find_many(id_ for _, id_ in items)
    for kind, id_ in items:
        if id_ not in known:
            msg = f"{kind.name.lower()} {id_.hex()[:12]} is in no pack that is known here; nothing was sent"
            raise ChunkNotFoundError(msg) if kind is Kind.CHUNK else ObjectNotFoundError(msg)
    return {id_: known[id_] for _, id_ in items}


def with_bases(
    index: Index, wanted: dict[bytes, Location], lacks: Callable[[Sequence[bytes]], list[bytes]]
) -> dict[bytes, Location]:
    """`wanted` and the bases of its deltas that the other side lacks, bases first; errors as `find_all`.

    Args:
        index: knows where bases are.
        wanted: copies by id.
        lacks: those of some ids that the other side does not have.
    """
    found = dict(wanted)
    for _ in range(MAX_BASE_DEPTH):
        bases = {base for c in found.values() for base in c.entry.bases} - found.keys()
        more = find_all(index, ((Kind.CHUNK, id_) for id_ in lacks(sorted(bases)))) if bases else {}
        if not more:
            break
        found = {**more, **found}
    return _bases_first(found)


def too_deep(index: Index, wanted: dict[bytes, Location], place: str) -> set[bytes]:
    """Those of `wanted`, bases first, that must not go to a place as they are: their chains would be too long.

    The place may hold other copies of their bases than this store: made by other writers, or before `optimize`.
    """
    depths: dict[bytes, int] = {}
    found: set[bytes] = set()

    def there(id_: bytes) -> tuple[bytes, ...] | None:
        return next((copy.entry.bases for copy in index.find(id_) if copy.place == place), None)

    for id_, location in wanted.items():
        bases = [depth_of(base, there, depths, unknown=0) for base in location.entry.bases]
        depths[id_] = 1 + max(bases) if bases else 0
        if depths[id_] > MAX_BASE_DEPTH:
            found.add(id_)
            depths[id_] = 0
    return found


def plan(index: Index, wanted: dict[bytes, Location], alone: Set[bytes] = frozenset()) -> Shipment:
    """How to send `wanted`: local packs of which everything is wanted go whole, the rest is loose.

    Args:
        index: knows what is in the packs.
        wanted: copies by id, bases first.
        alone: ids that must not go as they are.
    """
    whole: dict[PackId, list[Entry]] = {}
    for pack in dict.fromkeys(c.pack for c in wanted.values() if c.place == LOCAL):
        entries = index.entries(pack)
        # Another copy may have bases that the other side lacks, or that are too deep there.
        if all(e.id in wanted and wanted[e.id].pack == pack and e.id not in alone for e in entries):
            whole[pack] = entries
    packs = dict(_bases_sent_first(whole, wanted))
    sent = {entry.id for entries in packs.values() for entry in entries}
    loose = [copy for id_, copy in wanted.items() if id_ not in sent]
    size = sum(e.stored_size for entries in packs.values() for e in entries)
    items = [(copy.entry.kind, copy.entry.id) for copy in loose]
    return Shipment(packs, items, size + sum(copy.entry.stored_size for copy in loose))


def _bases_first(wanted: dict[bytes, Location]) -> dict[bytes, Location]:
    ordered: dict[bytes, Location] = {}
    entered: set[bytes] = set()
    stack = [*reversed(wanted)]
    while stack:
        id_ = stack[-1]
        if id_ not in entered:
            entered.add(id_)
            stack += [base for base in wanted[id_].entry.bases if base in wanted and base not in entered]
        else:
            ordered.setdefault(id_, wanted[stack.pop()])
    return ordered


def _bases_sent_first(
    whole: dict[PackId, list[Entry]], wanted: dict[bytes, Location]
) -> Iterator[tuple[PackId, list[Entry]]]:
    """Packs in an order in which no base comes late; packs that need each other, or loose bases, are left out."""
    left = dict(whole)
    sent: set[bytes] = set()
    while left:
        ready = [pack for pack, entries in left.items() if not _needs(entries, sent) & wanted.keys()]
        if not ready:
            return
        for pack in ready:
            entries = left.pop(pack)
            sent.update(entry.id for entry in entries)
            yield pack, entries


def _needs(entries: list[Entry], sent: set[bytes]) -> set[bytes]:
    return {base for e in entries for base in e.bases} - {e.id for e in entries} - sent
