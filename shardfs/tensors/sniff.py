"""Tells a model file by its first bytes."""

from __future__ import annotations

from typing import Final

from shardfs.tensors import gguf, npy, npz, onnx, safetensors, torchlegacy, torchzip, ziparchive
from shardfs.tensors.layout import Layout, ReadAt

_HEAD: Final = 16  # bytes that tell any of the formats
_HDF5: Final = b"\x89HDF\r\n\x1a\n"


def _archive(read_at: ReadAt, size: int) -> Layout | None:
    """A zip file: what torch writes, or what numpy writes."""
    members = ziparchive.read_members(read_at, size)
    if not members:
        return None
    return torchzip.read_layout(read_at, size, members) or npz.read_layout(read_at, size, members)


_READERS: Final = (
    (b"PK\x03\x04", _archive),
    (gguf.MAGIC, gguf.read_layout),
    (npy.MAGIC, npy.read_layout),
    (torchlegacy.MAGIC, torchlegacy.read_layout),
)


def detect(read_at: ReadAt, size: int, name: bytes = b"") -> Layout | None:
    """The layout of a file, or None when it is of no known format.

    Args:
        read_at: reads the file; the errors it raises pass through, no others are raised.
        size: of the file in bytes.
        name: of the file; only ONNX, which has no magic bytes, needs it.
    """
    head = read_at(0, min(size, _HEAD))
    for magic, read_layout in _READERS:
        if head.startswith(magic):
            return read_layout(read_at, size)
    if head.startswith(_HDF5):
        return Layout("hdf5")
    if safetensors.is_safetensors(head, size):
        return safetensors.read_layout(read_at, size)
    return onnx.read_layout(read_at, size) if name.lower().endswith(b".onnx") else None
