"""Which bases travel with a push: what the other side lacks, unless it takes fewer bytes to do without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.errors import ChunkNotFoundError, ObjectNotFoundError
from shardfs.formats.ids import Kind
from shardfs.formats.pack import Entry
from shardfs.store.chains import depth_of
from shardfs.store.index import Index, Location

Lacks = Callable[[Sequence[bytes]], list[bytes]]
"""Those of some ids that the other side does not have."""


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


def with_bases(index: Index, wanted: dict[bytes, Location], lacks: Lacks) -> tuple[dict[bytes, Location], set[bytes]]:
    """What has to be sent so that the other side can decode `wanted`; errors as `find_all`.

    Args:
        index: knows where bases are.
        wanted: copies by id.
        lacks: asked for each base once.

    Returns:
        `wanted` with those of its bases that have to come along, bases first; and the ids of deltas that are
        smaller without their bases than with them.
    """
    found = dict(wanted)
    asked: set[bytes] = set()
    newest: dict[bytes, Location] = wanted
    for _ in range(MAX_BASE_DEPTH):
        bases = {base for c in newest.values() for base in c.entry.bases} - found.keys() - asked
        asked |= bases
        newest = find_all(index, ((Kind.CHUNK, id_) for id_ in lacks(sorted(bases)))) if bases else {}
        if not newest:
            break
        found = {**newest, **found}
    ordered = _bases_first(found)
    alone = _without_costly_bases(index, wanted.keys(), ordered) if len(found) > len(wanted) else set()
    return ordered, alone


def too_deep(index: Index, wanted: dict[bytes, Location], place: str, alone: Set[bytes]) -> set[bytes]:
    """Those of `wanted`, bases first, that must not go to a place as they are: their chains would be too long.

    The place may hold other copies of their bases than this store: made by other writers, or before `optimize`. What
    is in `alone` needs no bases.
    """
    depths: dict[bytes, int] = {}
    found: set[bytes] = set()

    def there(id_: bytes) -> tuple[bytes, ...] | None:
        return next((copy.entry.bases for copy in index.find(id_) if copy.place == place), None)

    for id_, location in wanted.items():
        bases = [] if id_ in alone else [depth_of(base, there, depths, unknown=0) for base in location.entry.bases]
        depths[id_] = 1 + max(bases) if bases else 0
        if depths[id_] > MAX_BASE_DEPTH:
            found.add(id_)
            depths[id_] = 0
    return found


def _without_costly_bases(index: Index, asked_for: Set[bytes], found: dict[bytes, Location]) -> set[bytes]:
    """Drop bases from `found` that nobody asked for and that cost more than they save; returns what goes without them.

    How large a delta is without its base is not known before it is encoded; as the chunk at the end of its chain
    compresses, it will.
    """
    users: dict[bytes, list[Entry]] = {}
    for copy in found.values():
        for base in copy.entry.bases:
            users.setdefault(base, []).append(copy.entry)
    alone: set[bytes] = set()
    for id_ in reversed([id_ for id_ in found if id_ not in asked_for]):
        extra = found[id_].entry
        left = [entry for entry in users.get(id_, ()) if entry.id in found and entry.id not in alone]
        if any(entry.id not in asked_for for entry in left):
            continue
        with_base = extra.stored_size + sum(entry.stored_size for entry in left)
        if sum(entry.raw_size for entry in left) * _density(index, extra, found) <= with_base:
            alone.update(entry.id for entry in left)
            del found[id_]
    return alone


def _density(index: Index, entry: Entry, found: dict[bytes, Location]) -> float:
    """Stored bytes per byte of the chunk at the end of a chain."""
    for _ in range(MAX_BASE_DEPTH):
        if not entry.bases:
            break
        copy = found.get(entry.bases[0]) or next(iter(index.find(entry.bases[0])), None)
        if copy is None:
            return 1.0
        entry = copy.entry
    return entry.stored_size / entry.raw_size if entry.raw_size else 1.0


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
