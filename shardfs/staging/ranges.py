"""Ranges of a file that are taken away from one by one."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple


class Piece(NamedTuple):
    """A range `[start, end)` that is wholly in a set of ranges, or wholly outside."""

    start: int
    end: int
    inside: bool


class Ranges:
    """A set of bytes, as ranges. Safe to share between threads; a change costs little with 100 000 ranges, too."""

    def __init__(self, edges: Iterable[int] = ()) -> None:
        """The ranges between the first and the second edge, the third and the fourth, and so on.

        Raises:
            ValueError: the edges do not ascend, or one has no partner.
        """
        self._edges = list(edges)
        ascending = all(a < b for a, b in pairwise(self._edges))
        if len(self._edges) % 2 or not ascending:
            raise ValueError("edges of ranges must come in pairs and ascend")
        self._guard = threading.Lock()

    @property
    def edges(self) -> tuple[int, ...]:
        """Start and end of every range, ascending."""
        with self._guard:
            return tuple(self._edges)

    def __bool__(self) -> bool:
        return bool(self._edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.edges == other.edges

    __hash__ = None  # type: ignore[assignment]

    def remove(self, start: int, end: int | None = None) -> None:
        """Take `[start, end)` out; without an end everything from `start` on."""
        with self._guard:
            first = bisect_left(self._edges, start)
            last = len(self._edges) if end is None else bisect_right(self._edges, end)
            if end is not None and end <= start:
                return
            edges = [start] if first % 2 else []
            if end is not None and last % 2:
                edges.append(end)
            self._edges[first:last] = edges

    def covers(self, start: int, end: int) -> bool:
        """Whether all of `[start, end)`, which is not empty, is in the set."""
        with self._guard:
            after = bisect_right(self._edges, start)
            return after % 2 == 1 and self._edges[after] >= end

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """`[start, end)` cut at the edges, as they are now."""
        with self._guard:
            first, last = bisect_right(self._edges, start), bisect_left(self._edges, end)
            points = [start, *self._edges[first:last], end]
        inside = first % 2 == 1
        for a, b in pairwise(points):
            if a < b:
                yield Piece(a, b, inside)
            inside = not inside
