"""GGUF: counts, typed metadata, one description per tensor, then the tensors at aligned offsets."""

from __future__ import annotations

import math
from struct import Struct
from typing import Final

from shardfs.tensors.dtypes import BLOCKS, stored_size
from shardfs.tensors.layout import (
    MAX_DIMENSIONS,
    MAX_NAME,
    MAX_TENSORS,
    Layout,
    ReadAt,
    Stretch,
    Tensor,
    checked_shape,
    disjoint,
    in_order,
)
from shardfs.tensors.window import BrokenFileError, Window

MAGIC: Final = b"GGUF"
MAX_HEADER: Final = 64 << 20  # bytes; a vocabulary of 262 000 tokens with its merges takes some 15 MB
MAX_VALUES: Final = 65_536  # metadata entries and nested arrays; some 50 are usual
MAX_STRINGS: Final = 4_000_000  # in arrays; half a second
MAX_DEPTH: Final = 8  # arrays in arrays; the writers of the format have none

_BYTE_ORDERS: Final = {b"\x02\0\0\0": "<", b"\x03\0\0\0": "<", b"\0\0\0\x03": ">"}
_MAX_STRING: Final = 65_535  # bytes of a key or a tensor's name
_DEFAULT_ALIGNMENT: Final = 32
_UINT32, _STRING, _ARRAY = 4, 8, 9
_VALUE_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, _UINT32: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_DTYPES: Final = {
    0: "float32",
    1: "float16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    9: "q8_1",
    10: "q2_K",
    11: "q3_K",
    12: "q4_K",
    13: "q5_K",
    14: "q6_K",
    15: "q8_K",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    29: "iq1_m",
    30: "bfloat16",
    31: "q4_0_4x4",
    32: "q4_0_4x8",
    33: "q4_0_8x8",
    34: "tq1_0",
    35: "tq2_0",
    39: "mxfp4",
    40: "nvfp4",
    41: "q1_0",
}


def read_layout(read_at: ReadAt, size: int) -> Layout | None:
    """The layout of a GGUF file of `size` bytes; None if it breaks a rule of the format.

    Versions 2 and 3 are understood, version 3 in either byte order. Files of another version, or with a
    type of elements that is not known, are recognised without their tensors. Shapes are rows first, as
    in the other formats.
    """
    order = _BYTE_ORDERS.get(read_at(0, 8)[len(MAGIC) :])
    if order is None:
        return Layout("gguf")
    try:
        tensors = _Header(Window(read_at, size), order).tensors()
    except BrokenFileError:
        return None
    if tensors is None:
        return Layout("gguf")
    if any(tensor.end > size for tensor in tensors):
        return None
    swapped = order == ">"
    stretches = disjoint(Stretch(t.name, None, t.shape, t.start, t.end) if swapped else t for t in tensors)
    return None if stretches is None else Layout("gguf", None, in_order(tensors), stretches)


class _Header:
    """Walks the header from front to back; what breaks its rules or the limits raises BrokenFileError."""

    def __init__(self, window: Window, order: str) -> None:
        self._window = window
        self._order = order
        self._u32, self._u64, self._array = Struct(order + "I"), Struct(order + "Q"), Struct(order + "IQ")
        self._position = len(MAGIC) + self._u32.size
        self._alignment = _DEFAULT_ALIGNMENT
        self._values = MAX_VALUES
        self._strings = MAX_STRINGS

    def tensors(self) -> list[Tensor] | None:
        """The tensors in the order of their descriptions; None when a type is not known."""
        count, entries = self._take(self._u64), self._take(self._u64)
        if count > MAX_TENSORS:
            raise BrokenFileError("too many tensors")
        for _ in range(entries):
            self._skip_entry()
        described = [self._description() for _ in range(count)]
        if len({name for name, *_ in described}) != count:
            raise BrokenFileError("two tensors of one name")
        base = -(-self._position // self._alignment) * self._alignment
        if any(kind not in _DTYPES for _, _, kind, _ in described):
            return None
        return [self._placed(base, *description) for description in described]

    def _take(self, field: Struct) -> int:
        (value,) = field.unpack_from(self._window.view(self._position, field.size))
        self._move(field.size)
        return int(value)

    def _move(self, size: int) -> None:
        self._position += size
        if self._position > MAX_HEADER:
            raise BrokenFileError("header of too many bytes")

    def _text(self) -> bytes:
        length = self._take(self._u64)
        if length > _MAX_STRING:
            raise BrokenFileError("name of too many bytes")
        text = bytes(self._window.view(self._position, length)[:length])
        self._move(length)
        return text

    def _skip_entry(self) -> None:
        key, kind = self._text(), self._take(self._u32)
        if key == b"general.alignment":
            if kind != _UINT32:
                raise BrokenFileError("alignment of a wrong type")
            (self._alignment,) = self._u32.unpack_from(self._window.view(self._position, self._u32.size))
            if self._alignment.bit_count() != 1:
                raise BrokenFileError("alignment is no power of two")
        self._skip_values(kind, 1, MAX_DEPTH)

    def _skip_values(self, kind: int, count: int, depth: int) -> None:
        self._values -= 1
        if self._values < 0 or depth < 0:
            raise BrokenFileError("too much metadata")
        if kind in _VALUE_SIZES:
            self._move(_VALUE_SIZES[kind] * count)
        elif kind == _STRING:
            self._skip_strings(count)
        elif kind == _ARRAY:
            for _ in range(count):
                inner, length = self._array.unpack_from(self._window.view(self._position, self._array.size))
                self._move(self._array.size)
                self._skip_values(inner, length, depth - 1)
        else:
            raise BrokenFileError("metadata of unknown type")

    def _skip_strings(self, count: int) -> None:
        self._strings -= count
        if self._strings < 0:
            raise BrokenFileError("too many strings")
        unpack, step = self._u64.unpack_from, self._u64.size
        while count:
            # Vocabularies are long: what one view holds is walked without further calls.
            held = self._window.view(self._position, step)
            offset, last = 0, len(held) - step
            while count and offset <= last:
                offset += step + unpack(held, offset)[0]
                count -= 1
            self._move(offset)

    def _description(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of the next tensor."""
        name = self._text().decode("utf-8", "replace")[:MAX_NAME]
        dimensions = self._take(self._u32)
        if dimensions > MAX_DIMENSIONS:
            raise BrokenFileError("tensor of too many dimensions")
        fields = Struct(f"{self._order}{dimensions}QIQ")
        *sizes, kind, offset = fields.unpack_from(self._window.view(self._position, fields.size))
        self._move(fields.size)
        shape = checked_shape(sizes[::-1])
        if shape is None:
            raise BrokenFileError("tensor of impossible shape")
        return name, shape, kind, offset

    def _placed(self, base: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Tensor:
        dtype = _DTYPES[kind]
        row = shape[-1] if shape else 1
        length = None if row % BLOCKS[dtype][0] else stored_size(dtype, math.prod(shape))
        if length is None or offset % self._alignment:
            raise BrokenFileError("tensor out of line")
        return Tensor(name, dtype, shape, base + offset, base + offset + length)
