"""Cuts depend on content and extents alone, lose nothing and keep the limits."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.chunking import ContentDefinedCutter, Cursor, Cutter, FixedCutter

MIN, AVG, MAX = 256, 1024, 4096
CUTTERS: list[tuple[Cutter, Cutter]] = [
    (ContentDefinedCutter(MIN, AVG, MAX, alignment=8), ContentDefinedCutter(MIN, AVG, MAX)),
    (FixedCutter(1000), FixedCutter(777)),
]
LARGE = 64 * 1024


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Stretches of noise, zeros and repetition, up to some 400 KiB."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    parts = draw(st.lists(st.tuples(st.sampled_from("nzr"), st.integers(0, 100_000)), min_size=0, max_size=4))
    made: dict[str, Callable[[int], bytes]] = {
        "n": rng.randbytes,
        "z": bytes,
        "r": lambda n: (b"abcdefg" * (n // 7 + 1))[:n],
    }
    return b"".join(made[kind](size) for kind, size in parts)


@st.composite
def layouts(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    points = sorted(draw(st.lists(st.integers(0, size), max_size=6)))
    return list(zip(points[::2], points[1::2], strict=False))


def whole(data: bytes, extents: list[tuple[int, int]], pair: tuple[Cutter, Cutter]) -> list[bytes]:
    cursor, view, out = Cursor(len(data), extents, inside=pair[0], between=pair[1]), memoryview(data), []
    while not cursor.finished:
        start = cursor.offset
        out.append(data[start : start + cursor.cut(view[start:])])
    return out


def streamed(data: bytes, extents: list[tuple[int, int]], pair: tuple[Cutter, Cutter], buffer_size: int) -> list[bytes]:
    """Cut while the file arrives in one buffer whose rest is moved to the front at each refill."""
    cursor = Cursor(len(data), extents, inside=pair[0], between=pair[1])
    buffer, filled, base, out = bytearray(buffer_size), 0, 0, []
    while not cursor.finished:
        front = cursor.offset - base
        if filled - front < cursor.reach:
            buffer[: filled - front] = buffer[front:filled]
            base, filled = cursor.offset, filled - front
            fresh = data[base + filled : base + buffer_size]
            buffer[filled : filled + len(fresh)] = fresh
            filled += len(fresh)
            front = 0
        length = cursor.cut(memoryview(buffer)[front:filled])
        out.append(bytes(buffer[front : front + length]))
    return out


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_cuts_are_a_function_of_content(data: st.DataObject) -> None:
    content = data.draw(contents())
    extents = data.draw(layouts(len(content)))
    pair = data.draw(st.sampled_from(CUTTERS))
    chunks = whole(content, extents, pair)
    assert b"".join(chunks) == content
    assert all(0 < len(c) <= MAX for c in chunks)
    starts = set()
    position = 0
    for chunk in chunks:
        starts.add(position)
        position += len(chunk)
    assert all(s in starts and (e in starts or e == len(content)) for s, e in extents if e - s >= LARGE)
    for size in data.draw(st.lists(st.integers(MAX, 5 * MAX), min_size=1, max_size=3)):
        assert streamed(content, extents, pair, size) == chunks
