"""Where the tensors of a file are, read without shardfs so that a fault of its own reader shows."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FLOATS = {"F32": 4, "BF16": 2, "F16": 2}
_SMALLEST_TENSOR = 1024  # of a zip member that is taken for fp32 values


class Part(NamedTuple):
    """Bytes [start, end) of a file: a tensor, or what lies between tensors (`float_bytes` 0)."""

    name: str
    float_bytes: int
    start: int
    end: int


def parts_of(file: Path) -> Iterator[Part]:
    """Yield parts that cover the whole file, in order. The floats of a .pt are taken for fp32."""
    tensors = _of_zip(file) if file.suffix == ".pt" else _of_safetensors(file)
    position = 0
    for tensor in sorted(tensors, key=lambda part: part.start):
        if tensor.start > position:
            yield Part(f"before {tensor.name}", 0, position, tensor.start)
        yield tensor
        position = tensor.end
    if (size := file.stat().st_size) > position:
        yield Part("end", 0, position, size)


def _of_safetensors(file: Path) -> Iterator[Part]:
    with file.open("rb") as source:
        [size] = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(size))
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = (8 + size + offset for offset in tensor["data_offsets"])
            yield Part(name, _FLOATS.get(tensor["dtype"], 0), start, end)


def _of_zip(file: Path) -> Iterator[Part]:
    with file.open("rb") as source, zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            source.seek(member.header_offset + 26)
            name_size, extra_size = struct.unpack("<HH", source.read(4))
            start = member.header_offset + 30 + name_size + extra_size
            floats = member.file_size >= _SMALLEST_TENSOR and member.file_size % 4 == 0
            name = member.filename.partition("/")[2]  # torch puts the file's own name in front
            yield Part(name, 4 if floats and name.startswith("data/") else 0, start, start + member.file_size)
