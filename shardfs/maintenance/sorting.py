"""Which packs stay, which go, and what must be copied out before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from shardfs.formats.ids import PackId
from shardfs.formats.pack import Entry
from shardfs.store.packs import FinishedPack

# Below this share of needed bytes, copying them costs less than half of what deleting the pack frees.
MIN_LIVE_SHARE: Final = 0.5


IsSound = Callable[[PackId, Entry], bool]


@dataclass
class Sorting:
    """The decision.

    Attributes:
        drop: packs that hold nothing that is not in a pack that stays.
        rewrite: packs to delete after copying these entries.
        owned_bytes: for each pack the stored bytes of what is needed from it.
        kept_young: packs that would go if they were older.
        problems: one line for each pack that stays because it holds something damaged.
    """

    drop: list[PackId] = field(default_factory=list)
    rewrite: dict[PackId, list[Entry]] = field(default_factory=dict)
    owned_bytes: dict[PackId, int] = field(default_factory=dict)
    kept_young: int = 0
    problems: list[str] = field(default_factory=list)


def sort_packs(
    tables: Mapping[PackId, FinishedPack],
    live: Set[bytes],
    young: Set[PackId],
    is_sound: IsSound,
    damaged: Set[PackId] = frozenset(),
) -> Sorting:
    """Decide for each pack.

    An id that several packs hold counts for one of them: where its chain is shortest, and then the one of which most
    is needed, so that copies which an interrupted gc left behind go away. A copy that is damaged counts only if there
    is no sound one.

    Args:
        tables: packs that can be read.
        live: ids that are needed.
        young: packs that must stay.
        is_sound: whether an entry of a pack can be read; asked about ids that several packs hold.
        damaged: packs to copy out of whatever their share, because they hold something damaged.
    """
    owners = _owners(tables, live, is_sound)
    result = Sorting()
    for pack_id, table in tables.items():
        owned = [e for e in table.entries if owners.get(e.id, (None, True))[0] == pack_id]
        result.owned_bytes[pack_id] = sum(e.stored_size for e in owned)
        payload = sum(e.stored_size for e in table.entries)
        if owned and result.owned_bytes[pack_id] >= MIN_LIVE_SHARE * payload and pack_id not in damaged:
            continue
        if pack_id in young:
            result.kept_young += 1
        elif not owned:
            result.drop.append(pack_id)
        elif lost := [e for e in owned if not owners[e.id][1]]:
            name = f"pack {pack_id.hex()[:12]}"
            result.problems.append(f"{name} stays: it holds the only, damaged copy of {lost[0].id.hex()[:12]}")
        else:
            result.rewrite[pack_id] = owned
    return result


def _owners(
    tables: Mapping[PackId, FinishedPack], live: Set[bytes], is_sound: IsSound
) -> dict[bytes, tuple[PackId, bool]]:
    """The pack that each live id counts for, and whether its copy there may be sound.

    Copies of the same chunk may be deltas against each other's bases. So each id gets its owner after the bases of the
    copy that it owns: what stays never depends on itself.
    """
    copies: dict[bytes, list[tuple[PackId, Entry]]] = {}
    live_bytes: dict[PackId, int] = {}
    for pack_id, table in tables.items():
        needed = [e for e in table.entries if e.id in live]
        live_bytes[pack_id] = sum(e.stored_size for e in needed)
        for entry in needed:
            copies.setdefault(entry.id, []).append((pack_id, entry))
    best_first = sorted(tables, key=lambda pack: (-live_bytes[pack] / tables[pack].size, pack))
    return _Election(copies, {pack: rank for rank, pack in enumerate(best_first)}, is_sound).run()


class _Election:
    """Gives each id its owner: the copy with the shortest chain, and of those the one in the best pack.

    A deeper one would push what is stored as a difference to it beyond the depth that readers go to.
    """

    def __init__(
        self, copies: Mapping[bytes, list[tuple[PackId, Entry]]], ranks: Mapping[PackId, int], is_sound: IsSound
    ) -> None:
        self._copies = copies
        self._ranks = ranks
        self._is_sound = is_sound
        self._ready: list[tuple[int, int, PackId, Entry]] = []  # depths and ranks first
        self._waiting: dict[bytes, list[tuple[PackId, Entry]]] = {}  # copies by a base that has no owner yet
        self._owners: dict[bytes, tuple[PackId, bool]] = {}
        self._depths: dict[bytes, int] = {}

    def run(self) -> dict[bytes, tuple[PackId, bool]]:
        for places in self._copies.values():
            for pack_id, entry in places:
                self._offer(pack_id, entry)
        self._settle()
        for id_, places in self._copies.items():
            if id_ not in self._owners:  # a base is missing here, or no copy is sound
                self._own(id_, self._best(places))
                self._settle()
        return self._owners

    def _offer(self, pack_id: PackId, entry: Entry) -> None:
        missing = next((base for base in entry.bases if base not in self._owners), None)
        if missing is None:
            depth = 1 + max(self._depths.get(base, 0) for base in entry.bases) if entry.bases else 0
            heappush(self._ready, (depth, self._ranks[pack_id], pack_id, entry))
        else:
            self._waiting.setdefault(missing, []).append((pack_id, entry))

    def _settle(self) -> None:
        while self._ready:
            depth, _, pack_id, entry = heappop(self._ready)
            is_only = len(self._copies[entry.id]) == 1
            if entry.id not in self._owners and (is_only or self._is_sound(pack_id, entry)):
                self._depths[entry.id] = depth
                self._own(entry.id, (pack_id, True))

    def _own(self, id_: bytes, owner: tuple[PackId, bool]) -> None:
        self._owners[id_] = owner
        for pack_id, entry in self._waiting.pop(id_, ()):
            self._offer(pack_id, entry)

    def _best(self, places: list[tuple[PackId, Entry]]) -> tuple[PackId, bool]:
        places = sorted(places, key=lambda place: self._ranks[place[0]])
        if len(places) == 1:
            return places[0][0], True
        good = next((pack for pack, entry in places if self._is_sound(pack, entry)), None)
        return (places[0][0], False) if good is None else (good, True)
