"""Random relations between chunks: each gets one step, below what comes before it, no deeper than it may be."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shardfs.codecs import registry
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.maintenance.arranging import HEAD_DEPTH, Arrangement, Copies
from shardfs.maintenance.lineages import Lineages

PACK = PackId(bytes(32))


def chunk(number: int) -> bytes:
    return number.to_bytes(32, "big")


def entry(number: int, base: int | None) -> Entry:
    if base is None:
        return Entry(chunk(number), Kind.CHUNK, registry.RAW.code, 0, 100, 100)
    return Entry(chunk(number), Kind.CHUNK, registry.DELTA1.code, 0, 10, 100, (chunk(base),))


@dataclass(frozen=True)
class Relations:
    """Chunks by number, newest first; a relation is a pair of a chunk and a newer one.

    Attributes:
        count: of chunks.
        newer: the next version of each.
        stored: chunks that are stored as a difference, either way round.
        meetings: where lines of history meet.
        shallow: chunks of other branches.
    """

    count: int
    newer: dict[int, int]
    stored: dict[int, int]
    meetings: list[tuple[int, int]]
    shallow: set[int]

    def arrange(self, max_depth: int, *, ascending: bool = True) -> Arrangement:
        """Arrange them, each stored against its newer one, or the newer ones against them."""
        bases = self.stored if ascending else {newer: older for older, newer in self.stored.items()}
        copies: Copies = {chunk(n): [(PACK, entry(n, bases.get(n)))] for n in range(self.count)}
        known = Lineages(
            ranks={chunk(n): n for n in range(self.count)},
            newer={chunk(n): chunk(above) for n, above in self.newer.items()},
            meetings=[(chunk(one), chunk(other)) for one, other in self.meetings],
        )
        return Arrangement(copies, known, {chunk(n) for n in self.shallow}, max_depth)


@st.composite
def relations(draw: st.DrawFn) -> Relations:
    count = draw(st.integers(1, 12))
    numbers = st.integers(0, count - 1)
    pairs = st.tuples(numbers, numbers).map(lambda pair: (max(pair), min(pair))).filter(lambda pair: pair[0] != pair[1])
    some = st.lists(pairs, max_size=count) if count > 1 else st.just([])
    return Relations(count, dict(draw(some)), dict(draw(some)), draw(some), draw(st.sets(numbers)))


def check(found: Arrangement, known: Relations, max_depth: int) -> None:
    steps = {step.id: step for tree in found.trees() for step in tree}
    assert steps.keys() == {chunk(number) for number in range(known.count)}
    for number in range(known.count):
        step = steps[chunk(number)]
        assert step.depth <= (min(HEAD_DEPTH, max_depth) if number in known.shallow else max_depth)
        if step.base is None:
            assert step.depth == 0
        else:
            assert steps[step.base].rank < step.rank
            assert step.depth == steps[step.base].depth + 1


@given(relations(), st.integers(0, 4), st.booleans())
def test_chunks_hang_below_newer_ones_within_their_depths(known: Relations, max_depth: int, ascending: bool) -> None:
    check(known.arrange(max_depth, ascending=ascending), known, max_depth)


def test_a_branch_may_meet_the_second_of_two_versions_of_one_chunk() -> None:
    known = Relations(4, newer={1: 0, 2: 0}, stored={1: 0, 2: 0}, meetings=[(3, 2)], shallow={3})
    check(known.arrange(8), known, 8)
