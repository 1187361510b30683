"""Values as differences to one or two versions before. Spec: docs/design/format/codecs.md, "delta1" and "delta2"."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from shardfs.codecs import kernels, planeset
from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import Element
from shardfs.codecs.planes import header
from shardfs.errors import MalformedError

_RHO: Final = struct.Struct("<h")


class DeltaCodec:
    """Differences to the version before, grouped so that neighbours are of one size.

    A step of training has about the same size for all weights, so its length in units of the last place is given by
    the exponent of the weight that it moves.
    """

    code = 3
    name = "delta1"
    base_count = 1

    def encode(self, data: Buffer, element: Element, base: Buffer) -> bytes:
        """The payload; may be longer than `data`, which must be as long as `base` and hold a value."""
        planes = kernels.active.subtract(element, data, (base,), len(data) // element.width, 0)
        return _payload(data, element, b"", planes)

    def estimate(self, data: Buffer, element: Element, base: Buffer) -> int:
        """About the size of the payload in bytes; quicker."""
        planes = kernels.active.subtract(element, data, (base,), len(data) // element.width, 0)
        return planeset.estimate(planes, grouped=True)

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        """See `Codec`."""
        return _decode(payload, raw_size, bases, self.name, 0)


class SecondDeltaCodec:
    """Differences to a prediction: steps continue, in part, where the step before them went."""

    code = 4
    name = "delta2"
    base_count = 2

    def encode(self, data: Buffer, element: Element, bases: Sequence[Buffer]) -> bytes:
        """The payload; may be longer than `data`, which must be as long as both bases and hold a predictable value."""
        rho, planes = self._subtract(data, element, bases)
        return _payload(data, element, _RHO.pack(rho), planes)

    def estimate(self, data: Buffer, element: Element, bases: Sequence[Buffer]) -> int:
        """About the size of the payload in bytes; quicker."""
        return planeset.estimate(self._subtract(data, element, bases)[1], grouped=True)

    def _subtract(self, data: Buffer, element: Element, bases: Sequence[Buffer]) -> tuple[int, list[memoryview]]:
        count = len(data) // element.width
        rho = kernels.active.fit(element, data, bases, count)
        return rho, kernels.active.subtract(element, data, bases, count, rho)

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        """See `Codec`."""
        return _decode(payload, raw_size, bases, self.name, _RHO.size)


def _payload(data: Buffer, element: Element, stored: bytes, planes: Sequence[memoryview]) -> bytes:
    tail = memoryview(data)[len(data) // element.width * element.width :]
    return b"".join((bytes((element.code, 0)), stored, *planeset.pack(planes, grouped=True), tail))


def _decode(payload: Buffer, raw_size: int, bases: Sequence[Buffer], name: str, rho_size: int) -> bytes:
    element, flags, rest = header(payload)
    count, tail_size = divmod(raw_size, element.width)
    if flags or not count or len(rest) < rho_size or (rho_size and not element.predictable):
        msg = f"{name} of {raw_size} bytes of {element.name} with flags {flags}"
        raise MalformedError(msg)
    if any(len(base) != raw_size for base in bases):
        msg = f"{name} of {raw_size} bytes with bases of {', '.join(str(len(base)) for base in bases)}"
        raise MalformedError(msg)
    rho = _RHO.unpack(rest[:rho_size])[0] if rho_size else 0
    planes, tail = planeset.unpack(rest[rho_size:], [count] * element.width, tail_size)
    return kernels.active.add(element, planes, bases, count, tail, rho)
