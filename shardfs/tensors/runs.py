"""Small tensors that follow each other, taken together: adapters hold hundreds of them."""

from __future__ import annotations

from collections.abc import Iterable

from shardfs.tensors.layout import Stretch


def runs(stretches: Iterable[Stretch], small: int) -> tuple[Stretch, ...]:
    """Stretches, those of less than `small` bytes joined with small ones of the same type right behind them.

    A joined one has the name of its first part, and its length in bytes as its shape.
    """
    groups: list[list[Stretch]] = []
    for stretch in stretches:
        if groups and _follows(groups[-1][-1], stretch, small):
            groups[-1].append(stretch)
        else:
            groups.append([stretch])
    return tuple(group[0] if len(group) == 1 else _joined(group[0], group[-1]) for group in groups)


def _follows(before: Stretch, after: Stretch, small: int) -> bool:
    sizes = (before.end - before.start, after.end - after.start)
    return before.end == after.start and before.dtype == after.dtype and max(sizes) < small


def _joined(first: Stretch, last: Stretch) -> Stretch:
    return Stretch(first.name, first.dtype, (last.end - first.start,), first.start, last.end)
