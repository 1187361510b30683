"""What `torch.save` writes: a zip of stored members, one per storage, and a pickle that describes them."""

from __future__ import annotations

from shardfs.tensors import picklescan, ziparchive
from shardfs.tensors.layout import DTYPE_BITS, MAX_TENSORS, Layout, ReadAt, Tensor, disjoint
from shardfs.tensors.picklescan import View
from shardfs.tensors.ziparchive import Member


def read_layout(read_at: ReadAt, size: int) -> Layout | None:
    """The layout of a zip file of `size` bytes; None when it is none of torch's or numpy's.

    A tensor that several names share is listed once, under its first name. When the pickle is not
    understood, the tensors are unknown but the extents of the members still hold.
    """
    members = ziparchive.read_members(read_at, size)
    if not members:
        return None
    root = _root(members)
    if root is None:
        if not all(member.name.endswith(".npy") for member in members):
            return None
        extents = _extents(read_at, size, {member.name: member for member in members})
        return _layout("npz", "numpy", None, extents)
    by_name = {member.name[len(root) :]: member for member in members if member.name.startswith(root)}
    extents = _extents(read_at, size, by_name)
    kind = "torchscript" if "constants.pkl" in by_name else "torch-zip"
    return _layout(kind, "pytorch", _tensors(read_at, extents), extents)


def _layout(
    kind: str, framework: str, tensors: tuple[Tensor, ...] | None, extents: dict[str, tuple[int, int]]
) -> Layout | None:
    ranges = disjoint(list(extents.values()))
    return None if ranges is None else Layout(kind, framework, tensors, ranges)


def _root(members: list[Member]) -> str | None:
    """The folder that every member lies in: the stem of the file it was first saved as."""
    for member in members:
        folder, slash, rest = member.name.partition("/")
        if rest == "data.pkl":
            return folder + slash
    return None


def _extents(read_at: ReadAt, size: int, members: dict[str, Member]) -> dict[str, tuple[int, int]]:
    places = ((name, ziparchive.locate(read_at, size, member)) for name, member in members.items())
    return {name: place for name, place in places if place is not None}


def _tensors(read_at: ReadAt, extents: dict[str, tuple[int, int]]) -> tuple[Tensor, ...] | None:
    if "data.pkl" not in extents:
        return None
    start, end = extents["data.pkl"]
    if end - start > picklescan.MAX_PICKLE:
        return None
    views = picklescan.scan(read_at(start, end - start))
    if views is None or len(views) > MAX_TENSORS:
        return None
    tensors: dict[tuple[int, int, int, str], Tensor] = {}
    for view in views:
        tensor = _tensor(view, extents)
        if tensor is None:
            return None
        # Empty tensors share an address without sharing anything.
        alias = "" if tensor.elements else tensor.name
        tensors.setdefault((tensor.start, tensor.end, tensor.elements, alias), tensor)
    return tuple(sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)))


def _tensor(view: View, extents: dict[str, tuple[int, int]]) -> Tensor | None:
    """Where a view's bytes are; None when its storage is missing or too small."""
    place = extents.get(f"data/{view.key}")
    if place is None or view.storage_size > place[1] - place[0]:
        return None
    width = DTYPE_BITS[view.dtype] // 8
    start = place[0] + view.offset * width
    end = start + view.span * width
    if end > place[0] + view.storage_size:
        return None
    return Tensor(view.name, view.dtype, view.shape, start, end)
