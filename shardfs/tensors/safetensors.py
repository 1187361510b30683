"""safetensors: 8 bytes of header length, a JSON header, the tensors back to back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, Final

from shardfs.tensors.dtypes import stored_size
from shardfs.tensors.layout import MAX_NAME, MAX_TENSORS, Layout, ReadAt, Tensor, checked_shape, in_order

MAX_HEADER: Final = 16 << 20
"""Bytes of header that are read. The format allows 100 MB; 16 MiB hold over 100 000 tensors, and more
could not be parsed within the memory that one file may cost."""

_MAX_ENTRY: Final = 8192  # characters of one tensor's entry; about 100 are usual
_MAX_METADATA: Final = 1 << 20  # characters
_DTYPES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "F4": "float4_e2m1",
}
_FRAMEWORKS: Final = {
    "pt": "pytorch",
    "tf": "tensorflow",
    "flax": "flax",
    "mlx": "mlx",
    "np": "numpy",
}
_DECODER: Final = json.JSONDecoder()
_SPACE: Final = " \t\r\n"


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that starts with `head` (9 bytes or more) can be one."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= size - 8


def read_layout(read_at: ReadAt, size: int) -> Layout | None:
    """The layout of a safetensors file of `size` bytes; None if it breaks a rule of the format.

    The rules: the header is UTF-8 JSON of the known members and dtypes; each tensor's byte range has
    the size of its shape; the ranges cover the rest of the file with neither hole nor overlap.
    """
    length = int.from_bytes(read_at(0, 8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER):
        return None
    header = read_at(8, length)
    if len(header) != length:
        return None
    tensors: list[Tensor] = []
    framework = None
    names: set[str] = set()
    try:
        for name, value in _members(header.decode("utf-8")):
            if name in names or len(tensors) >= MAX_TENSORS:
                return None
            names.add(name)
            if name == "__metadata__":
                framework = _framework(value)
                continue
            tensor = _tensor(name, value, 8 + length)
            if tensor is None:
                return None
            tensors.append(tensor)
    except (ValueError, RecursionError):
        return None
    ordered = in_order(tensors)
    if not _covers(ordered, 8 + length, size):
        return None
    return Layout("safetensors", framework, ordered, tuple(t for t in ordered if t.end > t.start))


def _members(text: str) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object, one at a time: a header of 16 MiB as one Python value could be 20 times that.

    Raises:
        ValueError: not an object, or a member longer than a header has.
    """
    position = _after(text, 0, "{")
    if text[position : position + 1] == "}":
        position += 1
    else:
        while True:
            name, position = _value(text, position, MAX_NAME * 8)
            if not isinstance(name, str):
                raise JSONDecodeError("name expected", text[:40], 0)
            position = _after(text, position, ":")
            limit = _MAX_METADATA if name == "__metadata__" else _MAX_ENTRY
            value, position = _value(text, position, limit)
            yield name, value
            position = _skip(text, position)
            if text[position : position + 1] != ",":
                position = _after(text, position, "}", skip_behind=False)
                break
            position = _skip(text, position + 1)
    if _skip(text, position) != len(text):
        raise JSONDecodeError("end of header expected", text[:40], 0)


def _value(text: str, position: int, limit: int) -> tuple[Any, int]:
    value, length = _DECODER.raw_decode(text[position : position + limit])
    return value, position + length


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _after(text: str, position: int, mark: str, *, skip_behind: bool = True) -> int:
    position = _skip(text, position)
    if text[position : position + 1] != mark:
        raise JSONDecodeError(f"{mark} expected", text[:40], 0)
    return _skip(text, position + 1) if skip_behind else position + 1


def _framework(metadata: object) -> str | None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise JSONDecodeError("metadata must map strings to strings", "", 0)
    return _FRAMEWORKS.get(metadata.get("format", ""))


def _tensor(name: str, value: object, base: int) -> Tensor | None:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        return None
    shape, offsets, dtype = checked_shape(value["shape"]), value["data_offsets"], value["dtype"]
    if shape is None or not isinstance(dtype, str) or dtype not in _DTYPES:
        return None
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(o) is not int for o in offsets):
        return None
    tensor = Tensor(name[:MAX_NAME], _DTYPES[dtype], shape, base + offsets[0], base + offsets[1])
    if offsets[0] < 0 or tensor.end - tensor.start != stored_size(tensor.dtype, tensor.elements):
        return None
    return tensor


def _covers(tensors: tuple[Tensor, ...], start: int, end: int) -> bool:
    for tensor in tensors:
        if tensor.start != start:
            return False
        start = tensor.end
    return start == end
