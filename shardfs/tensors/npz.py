"""npz: a zip file of npy files, one per array."""

from __future__ import annotations

from shardfs.tensors import npy, ziparchive
from shardfs.tensors.layout import MAX_NAME, Layout, ReadAt, disjoint, in_order
from shardfs.tensors.ziparchive import Member

_SUFFIX = ".npy"


def read_layout(read_at: ReadAt, size: int, members: list[Member]) -> Layout | None:
    """The layout of a zip file of `size` bytes with these members; None when one of them is no npy file.

    Tensors have the names of their members without `.npy`.
    """
    arrays = []
    for member in members:
        place = ziparchive.locate(read_at, size, member)
        if place is None or not member.name.endswith(_SUFFIX):
            return None
        array = npy.read_array(read_at, *place, member.name.removesuffix(_SUFFIX)[:MAX_NAME])
        if array is None:
            return None
        arrays.append(array)
    stretches = disjoint(array.stretch for array in arrays if array.stretch)
    if stretches is None:
        return None
    return Layout("npz", "numpy", in_order(array.tensor for array in arrays if array.tensor), stretches)
