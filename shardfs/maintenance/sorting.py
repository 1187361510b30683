"""Which packs stay, which go, and what must be copied out before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
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

    An id that several packs hold counts for one of them, the one of which most is needed, so that copies which an
    interrupted gc left behind go away. A copy that is damaged counts only if there is no sound one.

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
    """The pack that each live id counts for, and whether its copy there may be sound."""
    copies: dict[bytes, list[tuple[PackId, Entry]]] = {}
    live_bytes: dict[PackId, int] = {}
    for pack_id, table in tables.items():
        needed = [e for e in table.entries if e.id in live]
        live_bytes[pack_id] = sum(e.stored_size for e in needed)
        for entry in needed:
            copies.setdefault(entry.id, []).append((pack_id, entry))
    owners: dict[bytes, tuple[PackId, bool]] = {}
    for id_, places in copies.items():
        if len(places) == 1:
            owners[id_] = (places[0][0], True)
            continue
        places.sort(key=lambda place: (-live_bytes[place[0]] / tables[place[0]].size, place[0]))
        good = next((pack for pack, entry in places if is_sound(pack, entry)), None)
        owners[id_] = (places[0][0], False) if good is None else (good, True)
    return owners
