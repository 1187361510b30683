"""Tells a model file by its first bytes."""

from __future__ import annotations

from typing import Final

from shardfs.tensors import safetensors, torchzip
from shardfs.tensors.layout import Layout, ReadAt

# The pickled magic number that torch.save wrote first before it wrote zip files (torch < 1.6).
_TORCH_LEGACY: Final = bytes.fromhex("8002 8a0a 6cfc 9c46 f920 6aa8 5019 2e")
_HEAD: Final = 16  # bytes that tell any of the formats

_BY_MAGIC: Final = (
    (b"GGUF", Layout("gguf")),
    (b"\x89HDF\r\n\x1a\n", Layout("hdf5")),
    (b"\x93NUMPY", Layout("npy", "numpy")),
    (_TORCH_LEGACY, Layout("torch-legacy", "pytorch")),
)


def detect(read_at: ReadAt, size: int, name: bytes = b"") -> Layout | None:
    """The layout of a file, or None when it is of no known format.

    Args:
        read_at: reads the file; the errors it raises pass through, no others are raised.
        size: of the file in bytes.
        name: of the file; only ONNX, which has no magic bytes, needs it.
    """
    head = read_at(0, min(size, _HEAD))
    if head.startswith(b"PK\x03\x04"):
        return torchzip.read_layout(read_at, size)
    if safetensors.is_safetensors(head, size):
        return safetensors.read_layout(read_at, size)
    for magic, layout in _BY_MAGIC:
        if head.startswith(magic):
            return layout
    # Field 1 of an ONNX model is ir_version, a varint; writers put it first.
    if head.startswith(b"\x08") and name.lower().endswith(b".onnx"):
        return Layout("onnx")
    return None
