"""What `torch.save` writes: a zip of stored members, one per storage, and a pickle that describes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

from shardfs.tensors import picklescan, ziparchive
from shardfs.tensors.dtypes import BLOCKS
from shardfs.tensors.layout import MAX_TENSORS, Layout, ReadAt, Stretch, Tensor, disjoint, in_order
from shardfs.tensors.picklescan import View
from shardfs.tensors.ziparchive import Member

Places = dict[str, tuple[int, int]]


def read_layout(read_at: ReadAt, size: int, members: list[Member]) -> Layout | None:
    """The layout of a zip file of `size` bytes with these members; None when it is none of torch's.

    A tensor that several names share is listed once, under its first name. When the pickle is not
    understood, the tensors are unknown but the members are still stretches.
    """
    root = _root(members)
    if root is None:
        return None
    by_name = {member.name[len(root) :]: member for member in members if member.name.startswith(root)}
    located = ((name, ziparchive.locate(read_at, size, member)) for name, member in by_name.items())
    places = {name: place for name, place in located if place is not None}
    views = _views(read_at, places)
    tensors = None if views is None else _tensors(views, places)
    stretches = disjoint(_stretches(places, tensors or {}, swapped=_is_big_endian(read_at, places)))
    if stretches is None:
        return None
    kind = "torchscript" if "constants.pkl" in by_name else "torch-zip"
    listed = None if tensors is None else in_order(chain.from_iterable(tensors.values()))
    return Layout(kind, "pytorch", listed, stretches)


def _root(members: list[Member]) -> str | None:
    """The folder that every member lies in: the stem of the file it was first saved as."""
    for member in members:
        folder, slash, rest = member.name.partition("/")
        if rest == "data.pkl":
            return folder + slash
    return None


def _is_big_endian(read_at: ReadAt, places: Places) -> bool:
    start, end = places.get("byteorder", (0, 0))
    return end - start == len(b"big") and read_at(start, end - start) == b"big"


def _views(read_at: ReadAt, places: Places) -> list[View] | None:
    start, end = places.get("data.pkl", (0, 0))
    if not 0 < end - start <= picklescan.MAX_PICKLE:
        return None
    views = picklescan.scan(read_at(start, end - start))
    return None if views is None or len(views) > MAX_TENSORS else views


def _tensors(views: list[View], places: Places) -> dict[str, list[Tensor]] | None:
    """The tensors in each storage, by its member's name; None when one has no room there."""
    stored: dict[str, dict[tuple[int, int, int, str], Tensor]] = defaultdict(dict)
    for view in views:
        member = f"data/{view.key}"
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
