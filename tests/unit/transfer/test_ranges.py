from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardfs.formats.ids import Kind
from shardfs.formats.pack import Entry
from shardfs.transfer import ranges
from shardfs.transfer.ranges import FIRST_WINDOW, MAX_GAP, MAX_WINDOW, extend


def _entries(sizes: list[int]) -> list[Entry]:
    offset, entries = 16, []
    for number, size in enumerate(sizes):
        entries.append(Entry(bytes([number]) * 32, Kind.CHUNK, 0, offset, size, size))
        offset += size
    return entries


@given(
    sizes=st.lists(st.integers(1, MAX_GAP * 2), min_size=1, max_size=30),
    wanted=st.sets(st.integers(0, 29)),
    window=st.integers(0, MAX_WINDOW),
)
def test_ranges_cover_what_they_name(sizes: list[int], wanted: set[int], window: int) -> None:
    entries = _entries(sizes)
    span = extend(entries[0], entries[1:], window, lambda e: e.id[0] in wanted)
    assert span.start == entries[0].offset
    assert span.entries[0] == entries[0]
    assert span.end == span.entries[-1].offset + span.entries[-1].stored_size
    assert span.end - span.start <= max(window, sizes[0])
    end = span.start
    for entry in span.entries:
        assert entry.offset - end <= MAX_GAP
        assert entry == entries[0] or entry.id[0] in wanted
        end = entry.offset + entry.stored_size


def test_windows_double_for_readers_in_sequence() -> None:
    reads = ranges._Reads()
    offset, windows = 0, []
    for _ in range(6):
        window = reads.window(offset)
        windows.append(window)
        offset += window
        reads.remember(offset, window)
    assert windows == [FIRST_WINDOW, 2 << 20, 4 << 20, MAX_WINDOW, MAX_WINDOW, MAX_WINDOW]
    assert reads.window(offset + MAX_GAP + 1) == FIRST_WINDOW
