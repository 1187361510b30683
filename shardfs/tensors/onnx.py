"""ONNX: a protobuf message whose graph holds the tensors, or says which other files do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from shardfs.tensors.dtypes import BLOCKS, stored_size
from shardfs.tensors.layout import (
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_NAME,
    MAX_TENSORS,
    ExternalTensor,
    Layout,
    ReadAt,
    Stretch,
    Tensor,
    checked_shape,
    disjoint,
    in_order,
)
from shardfs.tensors.protobuf import BYTES, VARINT, Field, Wire, varint
from shardfs.tensors.window import BrokenFileError, Window

MAX_DEPTH: Final = 64  # messages in messages; a graph inside a graph takes three

# Which fields of a message hold messages with tensors in them.
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
    "function": {7: "node"},
}
_PRODUCER, _GRAPH, _FUNCTION = 2, 7, 25  # fields of the model
_RAW: Final = 9  # the field of a tensor's bytes
_TYPED: Final = frozenset({4, 5, 6, 7, 10, 11})  # the fields of values by their type, if they are not raw
# Two of these are elements back to back like raw data; the others are varints.
_PLAIN: Final = {"float32": 4, "complex64": 4, "float64": 10, "complex128": 10}
_DTYPES: Final = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
}
_STRINGS: Final = 8
_FRAMEWORKS: Final = {b"pytorch": "pytorch", b"tf2onnx": "tensorflow"}
_ENTRIES: Final = (b"location", b"offset", b"length")  # what is said about external data
_MAX_NUMBER: Final = 19  # decimal digits of an offset or a length


def read_layout(read_at: ReadAt, size: int) -> Layout | None:
    """The layout of an ONNX file of `size` bytes; None if it is no such message or has no graph.

    The tensors are the initializers of the graph, of the graphs in its nodes and of those in functions.
    Strings are no tensors. `external` names those that other files hold.
    """
    wire, found = Wire(Window(read_at, size)), _Found()
    framework, has_graph = None, False
    try:
        for part in wire.fields(0, size):
            if part.number == _PRODUCER:
                framework = _FRAMEWORKS.get(wire.content(part, 16))
            elif part.number in (_GRAPH, _FUNCTION):
                has_graph |= part.number == _GRAPH
                found.walk(wire, "graph" if part.number == _GRAPH else "function", part)
    except BrokenFileError:
        return None
    stretches = disjoint(found.stretches)
    if not has_graph or stretches is None:
        return None
    tensors = in_order(found.tensors) if found.all_known else None
    return Layout("onnx", framework, tensors, stretches, tuple(found.external))


def external_layout(model: Layout, name: bytes, size: int) -> Layout | None:
    """The layout of a file of `size` bytes that holds tensors of an ONNX model.

    Args:
        model: the layout of the model's own file.
        name: path of the other file, relative to the folder of the model: its name when it lies beside it.
        size: of the other file in bytes.

    Returns:
        A layout of format "onnx-data"; None when the model names no tensors in that file, or none that fit in.
    """
    tensors: dict[tuple[int, int, str], Tensor] = {}
    for tensor in model.external:
        if _path(tensor.location) == name:
            start, end = tensor.offset, tensor.offset + tensor.length
            alias = "" if tensor.length else tensor.name
            tensors.setdefault((start, end, alias), Tensor(tensor.name, tensor.dtype, tensor.shape, start, end))
    stretches = disjoint(tensors.values())
    if not tensors or stretches is None or any(tensor.end > size for tensor in tensors.values()):
        return None
    return Layout("onnx-data", model.framework, in_order(tensors.values()), stretches)


def _path(location: str) -> bytes:
    """A location without what leads nowhere; it is compared with true paths only, so `..` matches none."""
    parts = [part for part in location.split("/") if part not in ("", ".")]
    return b"" if location.startswith("/") else "/".join(parts).encode()


@dataclass(slots=True)
class _Message:
    """A tensor as its message says it; its data is bytes `[start, end)`, in `pieces` of field `data`."""

    start: int
    end: int
    data: int = 0
    pieces: int = 0
    name: str = ""
    kind: int = 0
    sizes: list[int] = field(default_factory=list)
    is_external: bool = False
    entries: dict[bytes, bytes] = field(default_factory=dict)

    def add_data(self, part: Field) -> None:
        if self.data not in (0, part.number):
            raise BrokenFileError("tensor of two kinds of data")
        if not self.pieces:
            self.start = part.start
        self.data, self.end = part.number, part.end
        self.pieces += 1


@dataclass(slots=True)
class _Found:
    tensors: list[Tensor] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    external: list[ExternalTensor] = field(default_factory=list)
    all_known: bool = True
    locations: dict[str, str] = field(default_factory=dict)  # each once, however many tensors lie there

    def walk(self, wire: Wire, kind: str, message: Field) -> None:
        """Find the tensors in a message.

        Raises:
            BrokenFileError: the message breaks a rule of its format, or a limit.
        """
        for place in _places(wire, kind, message):
            if len(self.stretches) + len(self.external) >= MAX_TENSORS:
                raise BrokenFileError("too many tensors")
            self._add(_message(wire, place))

    def _add(self, message: _Message) -> None:
        shape, dtype = checked_shape(message.sizes), _DTYPES.get(message.kind)
        start, end = message.start, message.end
        if shape is None:
            raise BrokenFileError("tensor of impossible shape")
        if dtype is None:
            self.all_known &= message.kind == _STRINGS
            self.stretches.append(Stretch(message.name, None, (end - start,), start, end))
            return
        # Elements of less than a byte fill their last one with zeros.
        per_byte = BLOCKS[dtype][0]
        length = stored_size(dtype, -(-math.prod(shape) // per_byte) * per_byte) or 0
        if message.is_external:
            self.external.append(self._elsewhere(message, dtype, shape, length))
            return
        fits = end - start == length
        if not fits and message.data in (0, _RAW):
            raise BrokenFileError("tensor of another size than its shape")
        tensor = Tensor(message.name, dtype, shape, start, end)
        self.tensors.append(tensor)
        plain = fits and message.pieces <= 1 and message.data in (0, _RAW, _PLAIN.get(dtype))
        self.stretches.append(tensor if plain else Stretch(tensor.name, None, (end - start,), start, end))

    def _elsewhere(self, message: _Message, dtype: str, shape: tuple[int, ...], length: int) -> ExternalTensor:
        location = message.entries.get(b"location", b"").decode("utf-8", "replace")
        offset, given = (_number(message.entries.get(key, b"0")) for key in (b"offset", b"length"))
        if given not in (0, length) or offset > MAX_ELEMENTS:
            raise BrokenFileError("tensor of another size than its shape")
        location = self.locations.setdefault(location, location)
        return ExternalTensor(message.name, dtype, shape, location, offset, length)


def _places(wire: Wire, kind: str, message: Field, depth: int = MAX_DEPTH) -> Iterator[Field]:
    """The tensors in a message, and in those inside it."""
    if not depth:
        raise BrokenFileError("messages of too deep a nesting")
    for part in wire.fields(message.start, message.end):
        inside = _INSIDE[kind].get(part.number) if part.wire == BYTES else None
        if inside == "tensor":
            yield part
        elif inside is not None:
            yield from _places(wire, inside, part, depth - 1)


def _message(wire: Wire, place: Field) -> _Message:
    message = _Message(place.start, place.start)
    for part in wire.fields(place.start, place.end):
        match part.number:
            case 1:
                message.sizes += _numbers(wire, part)
                if len(message.sizes) > MAX_DIMENSIONS:
                    raise BrokenFileError("tensor of too many dimensions")
            case 2:
                message.kind = part.value
            case 8:
                message.name = wire.content(part, 4 * MAX_NAME).decode("utf-8", "replace")[:MAX_NAME]
            case 13:
                key, value = _entry(wire, part)
                if key in _ENTRIES:
                    message.entries[key] = value
            case 14:
                message.is_external = part.value == 1
            case number if number == _RAW or number in _TYPED:
                message.add_data(part)
    return message


def _numbers(wire: Wire, part: Field) -> list[int]:
    """The values of a repeated varint: one of them, or several packed into one field."""
    if part.wire == VARINT:
        return [part.value]
    packed = wire.content(part, 10 * MAX_DIMENSIONS + 1)  # if there is more, it is more than a shape may hold
    values, position = [], 0
    while position < len(packed):
        value, position = varint(packed, position)
        values.append(value)
    return values


def _entry(wire: Wire, part: Field) -> tuple[bytes, bytes]:
    """Key and value of one thing that is said about external data."""
    key = value = b""
    for inner in wire.fields(part.start, part.end):
        if inner.number == 1:
            key = wire.content(inner, MAX_NAME)
        elif inner.number == 2:
            value = wire.content(inner, MAX_NAME + 1)
    if len(value) > MAX_NAME and key in _ENTRIES:
        raise BrokenFileError("location of too many bytes")
    return key, value


def _number(text: bytes) -> int:
    if len(text) > _MAX_NUMBER or not text.isdigit():
        raise BrokenFileError("offset or length is no number")
    return int(text)
