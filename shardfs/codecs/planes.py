"""Values without a base, by planes of their bytes. Spec: docs/design/format/codecs.md, "planes"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shardfs.codecs import kernels, planeset
from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import ELEMENTS, Element
from shardfs.errors import MalformedError

ROTATED: Final = 1  # the flag that says: signs are in the lowest bits


class PlanesCodec:
    """Exponents repeat and mantissas do not; apart, the ones shrink and the others cost nothing to copy."""

    code = 2
    name = "planes"
    base_count = 0

    def encode(self, data: Buffer, element: Element) -> bytes:
        """The payload; may be longer than `data`."""
        rotate, planes = _split(data, element)
        tail = memoryview(data)[len(data) // element.width * element.width :]
        return b"".join((bytes((element.code, ROTATED * rotate)), *planeset.pack(planes, grouped=False), tail))

    def estimate(self, data: Buffer, element: Element) -> int:
        """About the size of the payload in bytes; quicker."""
        return planeset.estimate(_split(data, element)[1], grouped=False)

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        """See `Codec`."""
        del bases
        element, flags, rest = header(payload)
        if flags & ~ROTATED or (flags and not element.is_float):
            msg = f"planes of {element.name} with flags {flags}"
            raise MalformedError(msg)
        count, tail_size = divmod(raw_size, element.width)
        planes, tail = planeset.unpack(rest, [count] * element.width, tail_size)
        if not count:
            return bytes(tail)
        return kernels.active.join(element, planes, count, tail, rotate=bool(flags))


def _split(data: Buffer, element: Element) -> tuple[bool, list[memoryview]]:
    """Whether signs were rotated, and the planes."""
    count = len(data) // element.width
    if not count:
        return False, [memoryview(b"")] * element.width
    # The one plane of a float8 has the same histogram either way.
    rotate = element.is_float and element.width > 1 and kernels.active.any_sign(element, data, count)
    return rotate, kernels.active.split(element, data, count, rotate=rotate)


def header(payload: Buffer) -> tuple[Element, int, memoryview]:
    """Element and flags that a payload of planes begins with, and what follows them.

    Raises:
        MalformedError: too short, or an element that does not exist.
    """
    element = ELEMENTS.get(payload[0]) if len(payload) >= 2 else None
    if element is None:
        msg = f"planes of an unknown element: {bytes(payload[:2]).hex() or 'empty payload'}"
        raise MalformedError(msg)
    return element, payload[1], memoryview(payload)[2:]
