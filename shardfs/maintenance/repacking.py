"""Which packs go, and when: once everything that is needed of them is in packs that stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Final

from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.maintenance import roots
from shardfs.maintenance.arranging import Step
from shardfs.store.chains import decodable
from shardfs.store.packs import FinishedPack
from shardfs.transfer.plan import Reachable

SMALL: Final = 16 << 20  # bytes of a pack that is merged with others
MAX_STALE_SHARE: Final = 0.02  # of a pack: with more bytes that others replace, copying the rest (0.2 s) is worth it

Place = tuple[PackId, Entry]


class Stock:
    """What is in the packs, and what of it is needed.

    Attributes:
        tables: the packs.
        copies: of each needed chunk that can be decoded with what is here, its copies that can.
        live: ids that are needed, and all that their copies depend on.
        young: packs that may hold something that is only on its way.
        coming: ids that only such packs need, as bases.
        elsewhere: number of needed chunks that cannot be decoded with what is here.
        pinned: packs that hold copies of those, or what these depend on: with longer chains below them, they might be
            too deep to be read.
    """

    def __init__(self, tables: Mapping[PackId, FinishedPack], needed: Reachable, young: Set[PackId]) -> None:
        self.tables = tables
        self.young = young
        places: dict[bytes, list[Place]] = {}
        for pack_id, table in sorted(tables.items()):
            for entry in table.entries:
                places.setdefault(entry.id, []).append((pack_id, entry))
        self._places = places
        self.needed = {id_ for _, id_ in needed}
        self.coming = roots.coming(tables, young) - self.needed
        self.live = roots.with_bases(self.needed, tables.values()) | self.coming
        whole = decodable((entry.id, entry.bases) for found in places.values() for _, entry in found)
        chunks = {id_: places[id_] for id_ in needed.chunks if id_ in places}
        self.copies: dict[bytes, list[Place]] = {
            id_: [(pack, entry) for pack, entry in found if whole.issuperset(entry.bases)]
            for id_, found in chunks.items()
            if id_ in whole
        }
        self.elsewhere = len(needed.chunks) - len(self.copies)
        apart = roots.with_bases((id_ for id_ in chunks if id_ not in whole), tables.values())
        self.pinned = {pack for id_ in apart for pack, _ in places.get(id_, ())}

    def below(self, id_: bytes, tree: Set[bytes]) -> set[bytes]:
        """What copies of a chunk depend on outside of its tree: on the way to chunks that are needed themselves."""
        found: set[bytes] = set()
        todo = [id_]
        while todo:
            for _, entry in self._places.get(todo.pop(), ()):
                for base in entry.bases:
                    if base not in tree and base not in found:
                        found.add(base)
                        if base not in self.needed:
                            todo.append(base)
        return found

    def raw_size(self, id_: bytes) -> int:
        """Bytes of plaintext of a chunk."""
        return self.copies[id_][0][1].raw_size

    def objects(self) -> Iterator[tuple[bytes, list[Place]]]:
        """Needed commits, trees and manifests that are here, with their copies."""
        for id_, found in self._places.items():
            if id_ in self.needed and found[0][1].kind is not Kind.CHUNK:
                yield id_, found


class Repacking:
    """Packs on their way out.

    Attributes:
        leaving: packs that go.
        held: needed ids that one of those holds. All of them must be read from where they stay, or stored there.
        kept_young: packs that would go if they were older.
    """

    def __init__(self, stock: Stock, trees: Sequence[Sequence[Step]]) -> None:
        self._stock = stock
        self.kept_young = 0
        self.leaving = self._choose([step for tree in trees for step in tree])
        self._waiting = {pack: self._ids(pack) & stock.live for pack in self.leaving}
        self.held = frozenset[bytes]().union(*self._waiting.values()) & stock.needed
        self._packs: dict[bytes, list[PackId]] = {}
        for pack, ids in self._waiting.items():
            for id_ in ids:
                self._packs.setdefault(id_, []).append(pack)
        for tree in trees:
            self._keep_bases(tree)

    def concerns(self, step: Step) -> bool:
        """Whether something must be done for a chunk."""
        return step.keep is None or step.id in self.held

    def size(self, tree: Iterable[Step]) -> int:
        """Stored bytes of what a tree puts into new packs, about."""
        return sum(self._stock.copies[step.id][0][1].stored_size for step in tree if self.concerns(step))

    def objects(self) -> Iterator[list[Place]]:
        """The copies of each object that must be moved."""
        yield from (found for id_, found in self._stock.objects() if id_ in self.held)

    def made(self, packs: Iterable[PackId]) -> None:
        """Tell which packs were written. One that was to go stays if it was made again: same bytes, same id."""
        for pack in packs:
            self._waiting.pop(pack, None)

    def settle(self, ids: Iterable[bytes]) -> None:
        """Tell that ids are in a pack that stays, and can be read there."""
        for id_ in ids:
            for pack in self._packs.pop(id_, ()):
                if pack in self._waiting:
                    self._waiting[pack].discard(id_)

    def finish(self, *, with_bases: bool = False) -> list[PackId]:
        """Packs that can be deleted now, each once.

        Args:
            with_bases: whether chunks may go that were only needed as bases of others.
        """
        needed = self._stock.needed if with_bases else self._stock.live
        gone = [pack for pack, ids in self._waiting.items() if not ids & needed]
        for pack in gone:
            del self._waiting[pack]
        return gone

    def _keep_bases(self, tree: Sequence[Step]) -> None:
        """Let the packs of bases in other trees wait: with longer chains, a chunk that is next might be too deep."""
        inside = {step.id for step in tree}
        for step in tree:
            if step.keep is None:
                for base in self._stock.below(step.id, inside):
                    for pack in self._packs.get(base, ()):
                        self._waiting[pack].add(step.id)
                        self._packs.setdefault(step.id, []).append(pack)

    def _ids(self, pack: PackId) -> set[bytes]:
        return {entry.id for entry in self._stock.tables[pack].entries}

    def _choose(self, steps: Sequence[Step]) -> set[PackId]:
        stays = {step.id: step.keep.pack for step in steps if step.keep is not None}
        stays |= {id_: found[0][0] for id_, found in self._stock.objects()}
        stale, small = set[PackId](), set[PackId]()
        for pack, table in self._stock.tables.items():
            replaced = sum(e.stored_size for e in table.entries if e.id in self._stock.live and stays.get(e.id) != pack)
            chosen = stale if replaced > MAX_STALE_SHARE * table.size else small if table.size < SMALL else None
            if chosen is None or pack in self._stock.pinned:
                continue
            is_young = pack in self._stock.young and not self._ids(pack) <= self._stock.live
            if is_young or not self._stock.coming.isdisjoint(self._ids(pack)):
                self.kept_young += 1
            else:
                chosen.add(pack)
        is_written = stale or any(step.keep is None for step in steps)
        return stale | small if is_written or len(small) > 1 else stale
