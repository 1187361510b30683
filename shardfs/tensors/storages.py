"""Tensors as torch keeps them: views of storages, which lie anywhere in a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import Final

from shardfs.tensors.dtypes import BLOCKS
from shardfs.tensors.layout import Layout, Stretch, Tensor, disjoint, in_order
from shardfs.tensors.picklescan import View

STORAGE: Final = "data/"
"""In front of the key of a storage, this is the name of its place."""

Places = dict[str, tuple[int, int]]
"""The bytes `[start, end)` of storages and of other members by their names."""


def layout_of(kind: str, views: list[View] | None, places: Places, *, swapped: bool = False) -> Layout | None:
    """The layout of a file whose pickle describes `views`, or describes nothing that is understood.

    Args:
        kind: the format.
        views: in the order of their names.
        places: of everything in the file.
        swapped: whether elements are big-endian.

    Returns:
        None when places overlap. Tensors are unknown if the views are, or if one has no room in its place.
    """
    tensors = None if views is None else _tensors(views, places)
    stretches = disjoint(_stretches(places, tensors or {}, swapped=swapped))
    if stretches is None:
        return None
    listed = None if tensors is None else in_order(chain.from_iterable(tensors.values()))
    return Layout(kind, "pytorch", listed, stretches)


def _tensors(views: list[View], places: Places) -> dict[str, list[Tensor]] | None:
    """The tensors in each storage, by its member's name; None when one has no room there."""
    stored: dict[str, dict[tuple[int, int, int, str], Tensor]] = defaultdict(dict)
    for view in views:
        member = STORAGE + view.key
        tensor = _tensor(view, places.get(member, (0, 0)))
        if tensor is None:
            return None
        # Empty tensors share an address without sharing anything; another dtype makes another tensor.
        alias = tensor.dtype if tensor.elements else tensor.name
        stored[member].setdefault((tensor.start, tensor.end, tensor.elements, alias), tensor)
    return {member: list(tensors.values()) for member, tensors in stored.items()}


def _tensor(view: View, place: tuple[int, int]) -> Tensor | None:
    """Where a view's bytes are; None when its storage is missing or too small."""
    width = BLOCKS[view.dtype][1]
    start = place[0] + view.offset * width
    end = start + view.span * width
    if not end <= place[0] + view.storage_size <= place[1]:
        return None
    return Tensor(view.name, view.dtype, view.shape, start, end)


def _stretches(places: Places, tensors: dict[str, list[Tensor]], *, swapped: bool) -> Iterable[Stretch]:
    for member, (start, end) in places.items():
        yield _stretch(member, start, end, tensors.get(member, []), swapped=swapped)


def _stretch(member: str, start: int, end: int, tensors: list[Tensor], *, swapped: bool) -> Stretch:
    """A member as one stretch: of a tensor, of elements that several tensors share, or of bytes."""
    name = tensors[0].name if tensors else member
    dtypes = {tensor.dtype for tensor in tensors}
    width = BLOCKS[tensors[0].dtype][1] if len(dtypes) == 1 and not swapped else 0
    if not width or (end - start) % width:
        return Stretch(name, None, (end - start,), start, end)
    if len(tensors) == 1 and (tensors[0].start, tensors[0].end) == (start, end):
        return tensors[0]
    return Stretch(name, tensors[0].dtype, ((end - start) // width,), start, end)
