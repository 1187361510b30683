from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.transfer.ranges import (
    FIRST_WINDOW,
    MAX_GAP,
    MAX_NEIGHBOURS,
    MAX_WINDOW,
    PIECE,
    Windows,
    behind,
    coalesce,
    extend,
)

PACK = PackId(bytes(32))


def _entries(sizes: list[int]) -> list[Entry]:
    offset, entries = 16, []
    for number, size in enumerate(sizes):
        entries.append(Entry(number.to_bytes(32, "big"), Kind.CHUNK, 0, offset, size, size))
        offset += size
    return entries


def _number(entry: Entry) -> int:
    return int.from_bytes(entry.id, "big")


@given(
    sizes=st.lists(st.integers(1, MAX_GAP * 2), min_size=1, max_size=30),
    wanted=st.sets(st.integers(0, 29)),
    window=st.integers(0, MAX_WINDOW),
)
def test_ranges_cover_what_they_name(sizes: list[int], wanted: set[int], window: int) -> None:
    entries = _entries(sizes)
    span = extend(entries[0], entries[1:], window, lambda e: _number(e) in wanted)
    assert span.start == entries[0].offset
    assert span.entries[0] == entries[0]
    assert span.end == span.entries[-1].offset + span.entries[-1].stored_size
    assert span.end - span.start <= max(window, sizes[0])
    end = span.start
    for entry in span.entries:
        assert entry.offset - end <= MAX_GAP
        assert entry == entries[0] or _number(entry) in wanted
        end = entry.offset + entry.stored_size


@given(sizes=st.lists(st.integers(0, PIECE * 2), max_size=30), wanted=st.sets(st.integers(0, 29)))
def test_coalesced_ranges_cover_each_payload_once_and_little_else(sizes: list[int], wanted: set[int]) -> None:
    entries = [entry for entry in _entries(sizes) if _number(entry) in wanted]
    ranges = coalesce(reversed(entries))
    assert [entry for span in ranges for entry in span.entries] == entries
    for span in ranges:
        assert span.start == span.entries[0].offset
        assert span.end == span.entries[-1].offset + span.entries[-1].stored_size
        assert span.size <= max(PIECE, span.entries[0].stored_size)
    total = sum(entry.stored_size for entry in entries)
    assert sum(span.size for span in ranges) <= total + total // 16 + (256 << 10)


def test_neighbours_share_a_request_and_distant_payloads_do_not() -> None:
    entries = _entries([1000, MAX_GAP, 1000, MAX_GAP + 1, 1000])
    assert [len(span.entries) for span in coalesce(entries[::2])] == [2, 1]


def test_only_what_lies_behind_is_near() -> None:
    entries = _entries([100] * (MAX_NEIGHBOURS + 5))
    assert behind(entries, entries[2], 250) == entries[3:5]
    assert len(behind(entries, entries[0], MAX_WINDOW)) == MAX_NEIGHBOURS


def test_windows_double_for_readers_in_sequence() -> None:
    windows = Windows()
    offset, seen = 0, []
    for _ in range(6):
        window = windows.at(PACK, offset)
        seen.append(window)
        offset += window
        windows.ended(PACK, offset, window)
    assert seen == [FIRST_WINDOW, 2 * FIRST_WINDOW, 4 * FIRST_WINDOW, MAX_WINDOW, MAX_WINDOW, MAX_WINDOW]
    assert windows.at(PackId(b"\1" * 32), offset) == FIRST_WINDOW
    assert windows.at(PACK, offset + MAX_GAP + 1) == FIRST_WINDOW
