"""npy: magic bytes, a version, a header that is the text of a Python dict, then one array."""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

from shardfs.tensors.layout import MAX_DIMENSIONS, Layout, ReadAt, Stretch, Tensor, checked_shape

MAGIC: Final = b"\x93NUMPY"
MAX_HEADER: Final = 10_000  # bytes; numpy itself reads no more, and 118 are usual

_USUAL: Final = 128  # bytes in front of the array as numpy writes them
# What a header holds, in any order and with either quote; numbers may carry Python 2's L.
_MEMBER: Final = re.compile(
    r"""\s*(?P<q>['"])(?P<key>descr|fortran_order|shape)(?P=q)\s*:\s*"""
    r"""(?:(?P<v>['"])(?P<text>[^'"\\]*)(?P=v)|(?P<flag>True|False)|\((?P<sizes>[\d\sL,]*)\)|(?P<fields>\[[^{}]*\]))"""
    r"""\s*(?:,|(?=\}))"""
)
_SIZE: Final = re.compile(r"(\d{1,19})L?")
_DESCR: Final = re.compile(r"([<>|=])([a-zA-Z])(\d{1,9})(\[[^\]]*\])?")
_DTYPES: Final = {
    "b1": "bool",
    "u1": "uint8",
    "i1": "int8",
    "u2": "uint16",
    "i2": "int16",
    "u4": "uint32",
    "i4": "int32",
    "u8": "uint64",
    "i8": "int64",
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "c8": "complex64",
    "c16": "complex128",
}
_PLAIN: Final = frozenset("biufcSUVmM")  # the kinds whose elements are stored as they are; an O is a pickle
_UNICODE_BYTES: Final = 4  # a character of a U


class Array(NamedTuple):
    """What an npy file holds: a tensor if the elements are numbers, a stretch if they are no Python objects."""

    tensor: Tensor | None
    stretch: Stretch | None


class _Header(NamedTuple):
    descr: str
    shape: tuple[int, ...]
    body: int  # offset of the array


def read_layout(read_at: ReadAt, size: int) -> Layout | None:
    """The layout of an npy file of `size` bytes, whose tensor has no name; None if it breaks a rule of the format.

    Strings, dates, records and Python objects are no tensors.
    """
    array = read_array(read_at, 0, size, "")
    if array is None:
        return None
    tensors = () if array.tensor is None else (array.tensor,)
    stretches = () if array.stretch is None or array.stretch.end == array.stretch.start else (array.stretch,)
    return Layout("npy", "numpy", tensors, stretches)


def read_array(read_at: ReadAt, start: int, end: int, name: str) -> Array | None:
    """What the npy file in bytes `[start, end)` of a file holds, under that name; None if it is none."""
    header = _header(read_at, start, end)
    if header is None:
        return None
    described = _DESCR.fullmatch(header.descr)
    if described is None or described[2] not in _PLAIN:
        return Array(None, None)
    order, kind, width, _ = described.groups()
    bytes_each = int(width) * (_UNICODE_BYTES if kind == "U" else 1)
    stop = header.body + math.prod(header.shape) * bytes_each
    if stop > end:
        return None
    dtype = _DTYPES.get(kind + width)
    if dtype is None:
        return Array(None, Stretch(name, None, (stop - header.body,), header.body, stop))
    tensor = Tensor(name, dtype, header.shape, header.body, stop)
    swapped = order == ">" and bytes_each > 1
    return Array(tensor, Stretch(name, None, header.shape, header.body, stop) if swapped else tensor)


def _header(read_at: ReadAt, start: int, end: int) -> _Header | None:
    head = read_at(start, min(_USUAL, end - start))
    # Version 1 has two bytes of header length, 2 and 3 have four; 3 is UTF-8, the others Latin-1.
    field = 2 if head[6:8] == b"\x01\x00" else 4
    if not head.startswith(MAGIC) or head[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        return None
    length = int.from_bytes(head[8 : 8 + field], "little")
    body = start + 8 + field + length
    if length > MAX_HEADER or body > end:
        return None
    if body > start + len(head):
        head = read_at(start, body - start)
    text = head[8 + field : body - start].decode("latin-1")
    members = _members(text)
    if members.keys() != {"descr", "fortran_order", "shape"}:
        return None
    shape = _shape(members["shape"])
    return None if shape is None else _Header(members["descr"], shape, body)


def _members(text: str) -> dict[str, str]:
    """The members of the dict as they are written; what is no such dict has none."""
    text = text.strip()
    if not text.startswith("{"):
        return {}
    members: dict[str, str] = {}
    position = 1
    while (match := _MEMBER.match(text, position)) is not None:
        value = next(value for value in match.group("text", "flag", "sizes", "fields") if value is not None)
        members[match["key"]] = value
        position = match.end()
    return members if text[position:].strip() == "}" else {}


def _shape(sizes: str) -> tuple[int, ...] | None:
    parts = [part.strip() for part in sizes.split(",", MAX_DIMENSIONS + 1)]
    if not parts[-1]:
        parts.pop()
    matches = [_SIZE.fullmatch(part) for part in parts]
    return checked_shape([int(match[1]) if match else None for match in matches])
