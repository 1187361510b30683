"""The element types of tensors: one set of names for all formats, and the bytes they take."""

from __future__ import annotations

from typing import Final

_BYTES: Final = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "uint32": 4,
    "int32": 4,
    "uint64": 8,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
}
_PACKED: Final = {
    "int2": (4, 1),
    "uint2": (4, 1),
    "int4": (2, 1),
    "uint4": (2, 1),
    "float4_e2m1": (2, 1),
    "float6_e2m3": (4, 3),
    "float6_e3m2": (4, 3),
}
# Names and sizes are ggml's; a block holds its own scales.
_QUANTISED: Final = {
    "q1_0": (128, 18),
    "q2_K": (256, 84),
    "q3_K": (256, 110),
    "q4_0": (32, 18),
    "q4_0_4x4": (32, 18),
    "q4_0_4x8": (32, 18),
    "q4_0_8x8": (32, 18),
    "q4_1": (32, 20),
    "q4_K": (256, 144),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q5_K": (256, 176),
    "q6_K": (256, 210),
    "q8_0": (32, 34),
    "q8_1": (32, 36),
    "q8_K": (256, 292),
    "iq1_s": (256, 50),
    "iq1_m": (256, 56),
    "iq2_xxs": (256, 66),
    "iq2_xs": (256, 74),
    "iq2_s": (256, 82),
    "iq3_xxs": (256, 98),
    "iq3_s": (256, 110),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "tq1_0": (256, 54),
    "tq2_0": (256, 66),
    "mxfp4": (32, 17),
    "nvfp4": (64, 36),
}

BLOCKS: Final[dict[str, tuple[int, int]]] = {name: (1, size) for name, size in _BYTES.items()} | _PACKED | _QUANTISED
"""Elements and bytes of the smallest whole piece by dtype name: `(1, 4)` for float32, `(256, 144)` for q4_K."""


def stored_size(dtype: str, elements: int) -> int | None:
    """The bytes that `elements` of a dtype in `BLOCKS` take; None when they do not fill whole blocks."""
    per_block, size = BLOCKS[dtype]
    blocks, rest = divmod(elements, per_block)
    return None if rest else blocks * size
