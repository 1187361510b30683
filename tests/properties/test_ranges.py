"""Sets of bytes as ranges, against sets of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.staging.layers import Below
from shardfs.staging.ranges import Ranges

POINTS = st.integers(0, 40)
EDGES = st.lists(POINTS, unique=True).map(lambda found: sorted(found)[: len(found) // 2 * 2])


def bytes_of(ranges: Ranges) -> set[int]:
    edges = ranges.edges
    return {n for start, end in zip(edges[::2], edges[1::2], strict=True) for n in range(start, end)}


@given(edges=EDGES, removals=st.lists(st.tuples(POINTS, st.none() | POINTS), max_size=5), start=POINTS, length=POINTS)
def test_ranges_are_a_set_of_bytes(
    edges: list[int], removals: list[tuple[int, int | None]], start: int, length: int
) -> None:
    ranges = Ranges(edges)
    expected = bytes_of(ranges)
    for first, end in removals:
        ranges.remove(first, end)
        expected -= set(range(first, 100 if end is None else end))
    assert bytes_of(ranges) == expected
    assert bool(ranges) == bool(expected)
    assert Ranges(ranges.edges) == ranges
    if length:
        assert ranges.covers(start, start + length) == (set(range(start, start + length)) <= expected)
    pieces = list(ranges.pieces(start, start + length))
    assert [n for piece in pieces for n in range(piece.start, piece.end)] == list(range(start, start + length))
    for piece in pieces:
        assert {n in expected for n in range(piece.start, piece.end)} == {piece.inside}
    assert Below.from_bytes(Below(50, b"C" + bytes(32), ranges).to_bytes()) == Below(50, b"C" + bytes(32), ranges)


@pytest.mark.parametrize("edges", [[1], [2, 1], [1, 1], [0, 5, 5, 6]])
def test_edges_that_are_no_ranges_are_refused(edges: list[int]) -> None:
    with pytest.raises(ValueError, match="edges"):
        Ranges(edges)
