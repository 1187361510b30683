"""Chains with several copies of each chunk: all ways are tried, but not for ever."""

from __future__ import annotations

import pytest

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import PATCH, RAW, Encoded
from shardfs.errors import ChunkCorruptedError
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.pack import Entry
from shardfs.store.plaintext import Copy, PlaintextSource


def plain(number: int) -> bytes:
    return b"version %d" % number * 20


def copy(number: int, base: int | None = None) -> Copy:
    """A chunk by itself, or as a difference to another."""
    data = plain(number)
    encoded = Encoded(RAW.code, data)
    if base is not None:
        encoded = Encoded(PATCH.code, PATCH.encode(data, plain(base)), (chunk_id(plain(base)),))
    entry = Entry(chunk_id(data), Kind.CHUNK, encoded.codec, 0, len(encoded.payload), len(data), encoded.bases)
    return entry, lambda: encoded


class Stored:
    """Copies by the numbers of their chunks; counts how often some are asked for."""

    def __init__(self, copies: dict[int, list[Copy]]) -> None:
        self.copies: dict[bytes, list[Copy]] = {chunk_id(plain(number)): several for number, several in copies.items()}
        self.asked = 0

    def __call__(self, id_: bytes, _: Kind) -> list[Copy]:
        self.asked += 1
        return self.copies.get(id_, [])


def read(stored: Stored, number: int) -> bytes:
    return PlaintextSource(stored).read(chunk_id(plain(number)), Kind.CHUNK)


def test_many_copies_of_a_chain_that_is_too_long_end_soon() -> None:
    end = MAX_BASE_DEPTH + 1
    stored = Stored({n: [copy(n, n + 1)] * 3 for n in range(end)} | {end: [copy(end)]})
    with pytest.raises(ChunkCorruptedError):
        read(stored, 0)
    assert stored.asked < 5000  # of 3**17 ways


def test_the_longest_chain_is_read() -> None:
    assert read(Stored({n: [copy(n, n + 1)] for n in range(MAX_BASE_DEPTH)} | {16: [copy(16)]}), 0) == plain(0)


def test_a_circle_is_left_by_another_copy() -> None:
    stored = Stored({0: [copy(0, 1)], 1: [copy(1, 0), copy(1, 2)], 2: [copy(2, 0), copy(2)]})
    assert [read(stored, number) for number in range(3)] == [plain(0), plain(1), plain(2)]


def test_what_is_damaged_is_asked_for_again_by_the_next_read() -> None:
    stored = Stored({0: [copy(0, 1)], 1: [copy(1, 2)]})
    source = PlaintextSource(stored)
    with pytest.raises(ChunkCorruptedError):
        source.read(chunk_id(plain(0)), Kind.CHUNK)
    stored.copies[chunk_id(plain(2))] = [copy(2)]
    assert source.read(chunk_id(plain(0)), Kind.CHUNK) == plain(0)
