"""The wire format of protobuf messages: fields of a number and a value, walked with bounded work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from shardfs.tensors.window import BrokenFileError, Window

MAX_FIELDS: Final = 1_000_000
"""Fields that one walk visits, those of inner messages included: about a second and a half."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_VARINT: Final = 10  # bytes of 64 bits, 7 in each
_FIXED: Final = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """A field of a message; its value is bytes `[start, end)` of the file, and `value` if it is a VARINT (else 0)."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class Wire:
    """Reads messages through a window; a walk of all of them together is bounded."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._left = MAX_FIELDS

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message in bytes `[start, end)`, in file order.

        Raises:
            BrokenFileError: those bytes are no message, or `MAX_FIELDS` are exceeded.
        """
        position = start
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise BrokenFileError("message of too many fields")
            held = self._window.view(position, min(2 * _MAX_VARINT, end - position))
            key, size = varint(held, 0)
            number, wire = key >> 3, key & 7
            value = 0
            if wire == VARINT:
                value, after = varint(held, size)
                first, last = position + size, position + after
            elif wire == BYTES:
                length, after = varint(held, size)
                first = position + after
                last = first + length
            elif wire in _FIXED:
                first = position + size
                last = first + _FIXED[wire]
            else:
                raise BrokenFileError("unknown wire type")
            if last > end or not number:
                raise BrokenFileError("field past the end of its message")
            yield Field(number, wire, value, first, last)
            position = last

    def content(self, field: Field, limit: int) -> bytes:
        """The first `limit` bytes of a field's value, or all of them."""
        size = min(field.end - field.start, limit)
        return bytes(self._window.view(field.start, size)[:size])


def varint(held: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number at a position and the position behind it.

    Raises:
        BrokenFileError: it does not end within 10 bytes, or within those that are held.
    """
    value = 0
    for index, byte in enumerate(held[position : position + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise BrokenFileError("varint without an end")
