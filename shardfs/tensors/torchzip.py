"""What `torch.save` writes: a zip of stored members, one per storage, and a pickle that describes them."""

from __future__ import annotations

from shardfs.tensors import picklescan, ziparchive
from shardfs.tensors.layout import Layout, ReadAt
from shardfs.tensors.picklescan import View
from shardfs.tensors.storages import Places, layout_of
from shardfs.tensors.ziparchive import Member


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
    kind = "torchscript" if "constants.pkl" in by_name else "torch-zip"
    return layout_of(kind, _views(read_at, places), places, swapped=_is_big_endian(read_at, places))


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
    return picklescan.scan(read_at(start, end - start))
