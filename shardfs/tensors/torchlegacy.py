"""What `torch.save` wrote before it wrote zip files: pickles, then each storage behind its number of elements."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from shardfs.tensors import picklescan
from shardfs.tensors.layout import Layout, ReadAt
from shardfs.tensors.picklescan import View
from shardfs.tensors.storages import STORAGE, Places, layout_of

MAGIC: Final = bytes.fromhex("8002 8a0a 6cfc 9c46 f920 6aa8 5019 2e")
"""The pickle of a number of ten bytes."""

FORMAT: Final = "torch-legacy"
_COUNT: Final = 8  # bytes of a number of elements
_WIDTHS: Final = (1, 2, 4, 8, 16)  # bytes of an element
_PREAMBLE: Final = 2  # pickles of the protocol's version and of the machine that wrote the file
_PREAMBLE_OPERATIONS: Final = 200  # some 40 are usual
_LIST_OPERATIONS, _KEY_OPERATIONS = 100, 3  # of the list of storages: the string, its memo, and a mark per thousand


def read_layout(read_at: ReadAt, size: int) -> Layout | None:
    """The layout of a file of `size` bytes that begins with `MAGIC`; what follows may be no more than recognised."""
    stream = BytesIO(read_at(len(MAGIC), min(size - len(MAGIC), picklescan.MAX_PICKLE)))
    for _ in range(_PREAMBLE):
        if picklescan.scan(stream, _PREAMBLE_OPERATIONS) is None:
            return Layout(FORMAT, "pytorch")
    views = picklescan.scan(stream)
    keys = None if views is None else picklescan.scan_strings(stream, _LIST_OPERATIONS + _KEY_OPERATIONS * len(views))
    if views is None or keys is None:
        return Layout(FORMAT, "pytorch")
    places = _places(read_at, size, len(MAGIC) + stream.tell(), views, keys)
    return Layout(FORMAT, "pytorch") if places is None else layout_of(FORMAT, views, places)


def _places(read_at: ReadAt, size: int, position: int, views: list[View], keys: list[str]) -> Places | None:
    """Where the storages are that follow each other from `position` on; None when they are others than the views'."""
    sizes = {view.key: view.storage_size for view in views}
    if len(keys) != len(sizes) or set(keys) != sizes.keys():
        return None
    places = {}
    for key in keys:
        count = int.from_bytes(read_at(position, _COUNT), "little")
        start = position + _COUNT
        position = start + sizes[key]
        if position > size or all(sizes[key] != count * width for width in _WIDTHS):
            return None
        places[STORAGE + key] = (start, position)
    return places
