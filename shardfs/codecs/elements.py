"""What the elements of a tensor are, as far as codecs care: how wide, and where a float keeps its exponent."""

from __future__ import annotations

from typing import Final, NamedTuple

RHO_UNIT: Final = 256  # a second-order delta takes its factor in parts of this


class Element(NamedTuple):
    """A kind of element.

    Attributes:
        code: recorded in payloads; never re-used for another kind.
        name: in errors and kernels.
        width: bytes.
        is_float: sign and magnitude with the sign in the top bit; otherwise an integer.
        key_shift: where the eight bits begin by which a delta groups values: of the exponent, or of the whole value.
        key_mask: which of these bits count; 0 if values are not grouped.
        predictable: there are kernels that extrapolate this kind from two versions.
    """

    code: int
    name: str
    width: int
    is_float: bool
    key_shift: int = 0
    key_mask: int = 0
    predictable: bool = False


INT8: Final = Element(0, "int8", 1, is_float=False, key_mask=255)
INT16: Final = Element(1, "int16", 2, is_float=False)
INT32: Final = Element(2, "int32", 4, is_float=False)
INT64: Final = Element(3, "int64", 8, is_float=False)
FLOAT8: Final = Element(4, "float8", 1, is_float=True, key_mask=255)
FLOAT16: Final = Element(5, "float16", 2, is_float=True, key_shift=10, key_mask=31, predictable=True)
BFLOAT16: Final = Element(6, "bfloat16", 2, is_float=True, key_shift=7, key_mask=255, predictable=True)
FLOAT32: Final = Element(7, "float32", 4, is_float=True, key_shift=23, key_mask=255, predictable=True)
FLOAT64: Final = Element(8, "float64", 8, is_float=True, key_shift=52, key_mask=255)  # low 8 of 11 exponent bits

ELEMENTS: Final = {
    element.code: element for element in (INT8, INT16, INT32, INT64, FLOAT8, FLOAT16, BFLOAT16, FLOAT32, FLOAT64)
}

# Signs do not matter to a difference modulo the width. Numbers packed into bytes are taken as the bytes they are.
ELEMENT_OF_DTYPE: Final = {
    "bool": INT8,
    "uint8": INT8,
    "int8": INT8,
    "quint8": INT8,
    "qint8": INT8,
    "float8_e8m0fnu": INT8,
    "int2": INT8,
    "uint2": INT8,
    "int4": INT8,
    "uint4": INT8,
    "float6_e2m3": INT8,
    "float6_e3m2": INT8,
    "float4_e2m1": INT8,
    "uint16": INT16,
    "int16": INT16,
    "uint32": INT32,
    "int32": INT32,
    "qint32": INT32,
    "uint64": INT64,
    "int64": INT64,
    "float8_e4m3fn": FLOAT8,
    "float8_e4m3fnuz": FLOAT8,
    "float8_e5m2": FLOAT8,
    "float8_e5m2fnuz": FLOAT8,
    "float16": FLOAT16,
    "complex32": FLOAT16,
    "bfloat16": BFLOAT16,
    "float32": FLOAT32,
    "complex64": FLOAT32,
    "float64": FLOAT64,
    "complex128": FLOAT64,
}
