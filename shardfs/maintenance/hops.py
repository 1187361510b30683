"""Which newer version each version of a line is best stored against, so that no chain is too long.

A chain of neighbours is smallest, and as deep as the line is long. When it may not be, some versions must hop: they
are stored against one further away, and begin a chain of neighbours there. What a hop costs grows with the logarithm
of its length: a step of training moves a weight about as far as the one before it, so each doubling of the distance
adds a bit to the differences.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, log2
from typing import Final

WINDOW: Final = 128
"""Versions that are planned together. The time to plan grows with the square: 30 ms for 128, 8 deep."""

_NEIGHBOUR_COST: Final = 4.0  # bits per value of a difference between neighbours: bf16 3.9, of 10.7 without a base


@lru_cache(maxsize=256)
def hops(count: int, depth: int) -> tuple[int, ...]:
    """What to store versions against: for version 1, the next older than the newest, to version `count` a number each.

    Version 0 is the newest, which is stored by itself. Every version is stored against one of a lower number.

    Args:
        count: versions below the newest.
        depth: most links of a chain, 1 or more.
    """
    if count <= depth:
        return tuple(range(count))
    if depth == 1:
        return (0,) * count
    bases: list[int] = []
    for start in range(0, count, WINDOW):
        size = min(WINDOW, count - start)
        if start:  # one hop back to the newest, all others below it
            bases += [0, *(start + 1 + base for base in _below(size - 1, depth - 1))]
        else:
            bases += _below(size, depth)
    return tuple(bases)


def _below(count: int, depth: int) -> list[int]:
    """As `hops`, up to `WINDOW` versions."""
    bases = [0] * count
    todo = [(0, count, depth)]  # roots, how many versions to place below each, and how deep
    while todo:
        root, size, left = todo.pop()
        while size:
            before = _costs(left)[1][size]
            first = root + before + 1
            bases[first - 1] = root
            todo.append((first, size - before - 1, left - 1))
            size = before
    return bases


@lru_cache(maxsize=32)
def _costs(depth: int) -> tuple[list[float], list[int]]:
    """By number of versions below a root: the least cost, and how many of them come before the root's last branch."""
    if not depth:
        return [0.0] + [inf] * WINDOW, []
    inner = _costs(depth - 1)[0]
    hop = [_NEIGHBOUR_COST + log2(1 + distance) for distance in range(WINDOW)]
    costs, befores = [0.0], [0]
    for size in range(1, WINDOW + 1):
        cost, before = min((costs[i] + hop[i] + inner[size - i - 1], i) for i in range(size))
        costs.append(cost)
        befores.append(before)
    return costs, befores
