"""What has to come from remotes so that some chunks can be decoded, their bases included, told from the index alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.formats.ids import Kind
from shardfs.store import copies
from shardfs.store.cache import Cache
from shardfs.store.index import LOCAL, Index, Location

_MAX_NEEDS: Final = 10_000  # payloads of one plan


class Needs:
    """Safe to share between threads.

    Args:
        index: knows the packs of remotes.
        cache: what it has need not come.
        holds: whether the plaintext of a chunk is in memory.
        rank: what sorts remotes; of several copies the one at the first is taken.
    """

    def __init__(
        self,
        index: Index,
        cache: Cache | None,
        holds: Callable[[bytes], bool],
        rank: Callable[[str], Any] = lambda place: place,
    ) -> None:
        self._index = index
        self._cache = cache
        self._holds = holds
        self._rank = rank

    def of_chunks(self, ids: Iterable[bytes]) -> list[Location]:
        """Where to get what is missing to decode some chunks, in their order; empty when all is here or nowhere."""
        return self._follow({}, ids)

    def with_bases(self, locations: Iterable[Location]) -> list[Location]:
        """Payloads at remotes, and those of the bases that they take."""
        found = {location.entry.id: location for location in locations}
        return self._follow(found, [base for location in found.values() for base in location.entry.bases])

    def _follow(self, found: dict[bytes, Location], ids: Iterable[bytes]) -> list[Location]:
        """Add to `found` what `ids` need, one level of the chains at a time; what the first needs comes first."""
        turns = dict.fromkeys(found, 0)  # whose turn it is when they are decoded
        level = {id_: turn for turn, id_ in enumerate(dict.fromkeys(ids)) if id_ not in turns}
        for _ in range(MAX_BASE_DEPTH + 1):
            wanted = {id_: turn for id_, turn in level.items() if not self._holds(id_)}
            if not wanted or len(found) > _MAX_NEEDS:
                break
            turns |= wanted
            level = {}
            copy_of = self._index.find_many(wanted, self._rank)
            for id_, location in sorted(copy_of.items(), key=lambda item: turns[item[0]]):
                for base in self._bases(id_, location, found):
                    if base not in turns:
                        level.setdefault(base, turns[id_])
        return sorted(found.values(), key=lambda location: turns[location.entry.id])

    def _bases(self, id_: bytes, location: Location, found: dict[bytes, Location]) -> tuple[bytes, ...]:
        """The bases of the copy that a reader will decode; one that must come is added to `found`."""
        if copies.doubt(location, Kind.CHUNK, None):
            return ()
        if location.place != LOCAL:
            if self._cache is not None and (bases := self._cache.bases(id_)) is not None:
                return bases
            found[id_] = location
        return location.entry.bases
