"""The compiled and the numpy kernels give the same bytes, whatever the values are."""

from __future__ import annotations

import struct
from random import Random

import pytest

from shardfs.codecs import kernels_c
from shardfs.codecs.elements import ELEMENTS, Element
from shardfs.codecs.kernels import Kernels
from shardfs.codecs.kernels_numpy import NumpyKernels

COUNTS = (1, 2, 3, 4, 5, 7, 255, 20_001)
NUMPY = NumpyKernels()


@pytest.fixture(scope="module")
def compiled() -> Kernels:
    found = kernels_c.load()
    if found is None:
        pytest.skip("the kernels are not compiled here; pip install -e . does it where there is a C compiler")
    return found


def noise(seed: int, element: Element, count: int) -> bytes:
    """Any bits: NaNs, infinities and denormals among them."""
    return Random(seed).randbytes(count * element.width)


def extremes(seed: int, element: Element, count: int) -> bytes:
    """Zeros of both signs, the smallest and largest exponents, all ones, one bit less."""
    random, top = Random(seed), 1 << 8 * element.width - 1
    ends = [0, 1, 2, top - 1, top - 2, top, top + 1, 2 * top - 1, 2 * top - 2, element.key_mask << element.key_shift]
    return b"".join((random.choice(ends) % (2 * top)).to_bytes(element.width, "little") for _ in range(count))


def weights(seed: int, element: Element, count: int) -> bytes:
    """Numbers like weights, cut to the width from the top of a float64."""
    random = Random(seed)
    if element.name == "float32":
        return struct.pack(f"<{count}f", *(random.gauss(0, 0.02) for _ in range(count)))
    if element.name == "float16":
        return struct.pack(f"<{count}e", *(random.gauss(0, 0.02) for _ in range(count)))
    if element.name == "bfloat16":
        return b"".join(struct.pack("<f", random.gauss(0, 0.02))[2:] for _ in range(count))
    return b"".join(struct.pack("<d", random.gauss(0, 0.02))[-element.width :] for _ in range(count))


def moved(seed: int, data: bytes, element: Element) -> bytes:
    """The same numbers a few units further, or none."""
    random, limit = Random(seed), 1 << 8 * element.width
    words = (data[i : i + element.width] for i in range(0, len(data), element.width))
    return b"".join(
        ((int.from_bytes(w, "little") + random.randint(-5, 5)) % limit).to_bytes(element.width, "little") for w in words
    )


@pytest.mark.parametrize("element", ELEMENTS.values(), ids=lambda e: e.name)
@pytest.mark.parametrize("make", [noise, extremes, weights])
@pytest.mark.parametrize("count", COUNTS)
def test_planes(compiled: Kernels, element: Element, make: type, count: int) -> None:
    data = make(count, element, count)
    assert compiled.any_sign(element, data, count) == NUMPY.any_sign(element, data, count)
    for rotate in (False, True):
        planes = [bytes(plane) for plane in compiled.split(element, data, count, rotate=rotate)]
        assert planes == [bytes(plane) for plane in NUMPY.split(element, data, count, rotate=rotate)]
        for kernels in (compiled, NUMPY):
            assert kernels.join(element, planes, count, b"tail", rotate=rotate) == data + b"tail"


@pytest.mark.parametrize("element", ELEMENTS.values(), ids=lambda e: e.name)
@pytest.mark.parametrize("make", [noise, extremes, weights])
@pytest.mark.parametrize("count", COUNTS)
def test_differences(compiled: Kernels, element: Element, make: type, count: int) -> None:
    last = make(1, element, count)
    for data in (last, moved(2, last, element), make(3, element, count)):
        for before in (None, last, moved(4, last, element), make(5, element, count)):
            if before is not None and not element.predictable:
                continue
            bases = (last,) if before is None else (last, before)
            for rho in (0,) if before is None else (0, 112, -256, 384, 1, -32768, 32767):
                planes = [bytes(plane) for plane in compiled.subtract(element, data, bases, count, rho)]
                assert planes == [bytes(plane) for plane in NUMPY.subtract(element, data, bases, count, rho)]
                for kernels in (compiled, NUMPY):
                    assert kernels.add(element, planes, bases, count, b"t", rho) == data + b"t"


@pytest.mark.parametrize("element", [e for e in ELEMENTS.values() if e.predictable], ids=lambda e: e.name)
@pytest.mark.parametrize("make", [noise, extremes, weights])
def test_the_factor(compiled: Kernels, element: Element, make: type) -> None:
    for count in COUNTS:
        data, last, before = (make(seed, element, count) for seed in range(3))
        found = [kernels.fit(element, data, (last, before), count) for kernels in (compiled, NUMPY)]
        assert found[0] == found[1]
        assert -256 <= found[0] < 384


@pytest.mark.parametrize("step", [1, 16])
def test_squares(compiled: Kernels, step: int) -> None:
    for size in (1, 15, 16, 17, 20_003):
        plane = Random(size).randbytes(size) + bytes(size)
        found = [kernels.squares(plane, step) for kernels in (compiled, NUMPY)]
        assert found[0] == found[1] == sum(plane[::step].count(byte) ** 2 for byte in range(256))


@pytest.mark.parametrize("density", [0, 1, 30, 99, 100])
def test_thin_planes(compiled: Kernels, density: int) -> None:
    random = Random(density)
    for size in (1, 7, 8, 9, 15, 16, 17, 255, 4096, 20_003):
        plane = bytes(random.randrange(1, 256) if random.randrange(100) < density else 0 for _ in range(size))
        bitmap, others = (bytes(part) for part in compiled.thin(plane))
        assert (bitmap, others) == tuple(bytes(part) for part in NUMPY.thin(plane))
        more = bytes([bitmap[0] ^ 1]) + bitmap[1:]
        outside = bitmap[:-1] + bytes([bitmap[-1] | 0x80])
        for kernels in (compiled, NUMPY):
            assert kernels.thicken(bitmap, others, size) == plane
            assert kernels.thicken(bitmap, others + b"x", size) is None
            assert kernels.thicken(more, others, size) is None
            if size % 8:
                assert kernels.thicken(outside, others + b"x", size) is None


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: memoryview(b"?" + data)[1:]])
def test_buffers_of_every_kind_at_any_address(compiled: Kernels, wrap: type[bytes]) -> None:
    for element in ELEMENTS.values():
        data, base = weights(1, element, 1001), weights(2, element, 1001)
        planes = compiled.subtract(element, wrap(data), (wrap(base),), 1001, 0)
        copies = [wrap(bytes(plane)) for plane in planes]
        assert compiled.add(element, copies, (wrap(base),), 1001, wrap(b"tail"), 0) == data + b"tail"


def test_another_library_is_not_used(tmp_path: object) -> None:
    assert kernels_c.load(f"{tmp_path}/missing.so") is None
    assert kernels_c.load("libc.so.6") is None
