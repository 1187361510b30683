"""How chunks should be stored: heads shallow, older versions as differences to newer ones.

Chunks form trees: each hangs below its next newer version. What is stored well already is left as it is, so that a
second run has nothing to do and an interrupted one goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shardfs.codecs import registry
from shardfs.codecs.elements import ELEMENT_OF_DTYPE
from shardfs.formats.ids import PackId
from shardfs.formats.pack import Entry
from shardfs.maintenance.hops import hops
from shardfs.maintenance.lineages import Lineages

HEAD_DEPTH: Final = 2
"""Most links below a chunk of a branch or tag that is not the current one. None would cost as much as a first version
wherever two lines of history meet."""

MAX_JOINED: Final = 256 << 20
"""Stored bytes of trees that are joined: a tree is encoded in one go, and its payloads are in memory until then."""

Copies = Mapping[bytes, Sequence[tuple[PackId, Entry]]]


class Copy(NamedTuple):
    """One stored copy of a chunk."""

    pack: PackId
    entry: Entry


class Step(NamedTuple):
    """What should become of one chunk.

    Attributes:
        id: of the chunk.
        rank: its place among all chunks, newest version first; a base has a lower rank than what needs it.
        dtype: what its bytes are, if known.
        keep: the copy that is stored well; None when it is to be encoded.
        spare: a whole copy that does as well if encoding gains nothing.
        base: what to encode it against; None for nothing.
        depth: links below it, at most.
    """

    id: bytes
    rank: int
    dtype: str | None
    keep: Copy | None
    spare: Copy | None
    base: bytes | None
    depth: int


@dataclass
class _Line:
    """Chunks that follow each other, newest first.

    Attributes:
        above: what the first hangs below, if anything.
        heads: positions where chains may begin, ascending: of the first, of versions that must be shallow, of forks.
    """

    above: bytes | None
    chunks: list[bytes] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)


class Arrangement:
    """The wanted state of a set of chunks."""

    def __init__(self, copies: Copies, known: Lineages, shallow: Collection[bytes], max_depth: int) -> None:
        """Arrange chunks.

        Args:
            copies: how each chunk is stored here, the copy that readers try first at the front.
            known: their history.
            shallow: chunks of branches and tags that are not the current branch.
            max_depth: most links of a chain; 0 for no differences at all.
        """
        self._copies = copies
        self._known = known
        self._shallow = shallow
        self._max_depth = max_depth
        order = sorted(copies, key=lambda id_: (known.ranks.get(id_, len(known.ranks)), copies[id_][0]))
        self._ranks = {id_: rank for rank, id_ in enumerate(order)}
        self._related = self._relations()
        forest = _Forest(self._ranks, copies)
        for id_ in order:
            forest.add(id_, self._newer(id_))
        for one, other in (*known.meetings, *self._pairs(order)):
            if one in copies and other in copies:
                forest.join(one, other)
        self._above = forest.above
        self._forks = {above for below, above in forest.joined if below in shallow}
        self._lines: dict[bytes, tuple[_Line, int]] = {}
        self._trees: dict[bytes, list[bytes]] = {}
        for id_ in order:
            self._trees.setdefault(forest.root(id_), []).append(id_)
            self._place(id_)

    def trees(self) -> Iterator[list[Step]]:
        """The steps for each tree, ascending by rank. No chunk depends on one of another tree once they are done."""
        for tree in self._trees.values():
            yield _Tree(self, tree).steps()

    def rank(self, id_: bytes) -> int:
        """The place of a chunk among all."""
        return self._ranks[id_]

    def copies(self, id_: bytes) -> Sequence[tuple[PackId, Entry]]:
        """How a chunk is stored here."""
        return self._copies[id_]

    def dtype(self, id_: bytes) -> str | None:
        """What the bytes of a chunk are."""
        return self._known.dtypes.get(id_)

    def limit(self, id_: bytes, depths: Mapping[bytes, int]) -> int:
        """Most links below a chunk that hangs below another; `depths` are those of lower ranks.

        Where the line of another branch begins one link is saved for the newest chunk of that branch, which then need
        not be a difference to something far away.
        """
        line, position = self._lines[id_]
        top = line.chunks[0] if position else line.above
        if id_ in self._forks and top is not None and not depths[top]:
            return min(HEAD_DEPTH - 1, self._max_depth)
        return min(HEAD_DEPTH, self._max_depth) if id_ in self._shallow else self._max_depth

    def proposal(self, id_: bytes, depths: Mapping[bytes, int]) -> bytes | None:
        """What a chunk is best stored against, as far as its line tells; `depths` are those of lower ranks."""
        line, position = self._lines[id_]
        segment = bisect_right(line.heads, position) - 1
        start = line.heads[segment]
        if position == 0:
            return line.above
        if position == start and line.heads[segment - 1] < position - 1:
            return line.chunks[position - 1]
        if position == start:
            budget = max(1, HEAD_DEPTH - depths[line.chunks[0]])
            return line.chunks[line.heads[hops(len(line.heads) - 1, budget)[segment - 1]]]
        end = line.heads[segment + 1] if segment + 1 < len(line.heads) else len(line.chunks)
        budget = max(1, self._max_depth - depths[line.chunks[start]])
        return line.chunks[start + hops(end - start - 1, budget)[position - start - 1]]

    def pays(self, id_: bytes) -> bool:
        """Whether a chunk that is stored whole may become smaller as a difference.

        Each was compared when it was stored. It was not if its next version came later, which then is stored as a
        difference to it, or if whoever stored it knew no differences.
        """
        dtype = self.dtype(id_)
        is_old = dtype in ELEMENT_OF_DTYPE and any(e.codec == registry.ZSTD.code for _, e in self._copies[id_])
        return is_old or any(self._ranks[other] < self._ranks[id_] for other in self._related.get(id_, ()))

    def _relations(self) -> dict[bytes, set[bytes]]:
        """Chunks that are stored as a difference to each other, in either direction."""
        related: dict[bytes, set[bytes]] = {}
        for id_, copies in self._copies.items():
            for _, entry in copies:
                if entry.bases and entry.bases[0] in self._copies:
                    related.setdefault(id_, set()).add(entry.bases[0])
                    related.setdefault(entry.bases[0], set()).add(id_)
        return related

    def _pairs(self, order: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for id_ in order:
            for other in sorted(self._related.get(id_, ()), key=self._ranks.__getitem__):
                if self._ranks[other] < self._ranks[id_]:
                    yield id_, other

    def _newer(self, id_: bytes) -> bytes | None:
        """The next newer version that is stored here: as history tells, else as the chunk is stored."""
        found = self._known.newer.get(id_)
        while found is not None and found not in self._copies:
            found = self._known.newer.get(found)
        if found is not None:
            return found
        newer = [other for other in self._related.get(id_, ()) if self._ranks[other] < self._ranks[id_]]
        return max(newer, key=self._ranks.__getitem__, default=None)

    def _place(self, id_: bytes) -> None:
        above = self._above.get(id_)
        line = self._lines[above][0] if above is not None else None
        if line is None or line.chunks[-1] != above:
            line = _Line(above)
        if not line.chunks or id_ in self._shallow or id_ in self._forks:
            line.heads.append(len(line.chunks))
        self._lines[id_] = line, len(line.chunks)
        line.chunks.append(id_)


class _Forest:
    """Which chunk hangs below which. Each hangs below one of a lower rank, so there is no circle."""

    def __init__(self, ranks: Mapping[bytes, int], copies: Copies) -> None:
        self.above: dict[bytes, bytes] = {}
        self.joined: list[tuple[bytes, bytes]] = []  # roots, and what they were hung below
        self._ranks = ranks
        self._copies = copies
        self._roots: dict[bytes, bytes] = {}  # towards the root
        self._sizes: dict[bytes, int] = {}  # stored bytes of the tree of a root

    def root(self, id_: bytes) -> bytes:
        """The newest chunk of a tree."""
        top = id_
        while (found := self._roots[top]) != top:
            top = found
        while id_ != top:
            id_, self._roots[id_] = self._roots[id_], top
        return top

    def add(self, id_: bytes, above: bytes | None) -> None:
        """Add a chunk, below one that was added before."""
        self._roots[id_] = id_
        self._sizes[id_] = self._copies[id_][0][1].stored_size
        if above is not None:
            self._hang(id_, above)

    def join(self, one: bytes, other: bytes) -> None:
        """Hang the tree of one of two related chunks into that of the other, as near as ranks allow."""
        first, second = sorted((self.root(one), self.root(other)), key=self._ranks.__getitem__)
        if first != second and self._sizes[first] + self._sizes[second] <= MAX_JOINED:
            at = one if self.root(one) == first else other
            while self._ranks[at] > self._ranks[second]:
                at = self.above[at]
            self._hang(second, at)
            self.joined.append((second, at))

    def _hang(self, root: bytes, above: bytes) -> None:
        top = self.root(above)
        self.above[root] = above
        self._roots[root] = top
        self._sizes[top] += self._sizes.pop(root)


class _Tree:
    """Decides for the chunks of one tree, newest first."""

    def __init__(self, all_: Arrangement, chunks: Sequence[bytes]) -> None:
        self._all = all_
        self._chunks = chunks
        self._depths: dict[bytes, int] = {}
        self._bases: dict[bytes, bytes | None] = {}

    def steps(self) -> list[Step]:
        return [self._step(id_) for id_ in self._chunks]

    def _step(self, id_: bytes) -> Step:
        base = self._all.proposal(id_, self._depths)
        limit = 0 if base is None else self._all.limit(id_, self._depths)
        while base is not None and self._depths[base] >= limit:
            base = self._bases[base]
        good = [Copy(*copy) for copy in self._all.copies(id_) if self._depth(copy[1]) <= limit]
        keep = min(good, key=lambda copy: (copy.entry.stored_size, copy.pack), default=None)
        spare = None
        if keep is not None and not keep.entry.bases and base is not None and self._all.pays(id_):
            keep, spare = None, keep
        if keep is not None:
            base = keep.entry.bases[0] if keep.entry.bases else None
        depth = self._depth(keep.entry) if keep is not None else 0 if base is None else self._depths[base] + 1
        self._depths[id_], self._bases[id_] = depth, base
        return Step(id_, self._all.rank(id_), self._all.dtype(id_), keep, spare, base, depth)

    def _depth(self, entry: Entry) -> int:
        """Links below a copy; more than there may be if it needs what comes later."""
        return max((self._depths.get(base, 1 << 30) for base in entry.bases), default=-1) + 1
