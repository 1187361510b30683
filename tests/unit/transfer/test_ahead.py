"""Loading ahead: the nearest first, never twice, never in the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from shardfs.errors import ChunkNotFoundError
from shardfs.formats.ids import chunk_id
from shardfs.formats.manifest import ChunkRef
from shardfs.transfer.ahead import MAX_PENDING, Ahead

REFS = [ChunkRef(chunk_id(bytes([n]) * 10), 10) for n in range(40)]


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_each_chunk_is_loaded_once_and_failures_are_kept_quiet() -> None:
    loaded: list[bytes] = []

    def load(chunk: ChunkRef) -> bytes:
        loaded.append(chunk.id)
        raise ChunkNotFoundError

    ahead = Ahead(load)
    ahead.want(REFS[:3])
    assert _until(lambda: len(loaded) == 3)
    ahead.close()
    assert sorted(loaded) == sorted(ref.id for ref in REFS[:3])


class Gate:
    """Loads nothing until it is opened; the first chunk keeps the only thread."""

    def __init__(self, has_room: Callable[[int], bool] = lambda _size: True) -> None:
        self.loaded: list[ChunkRef] = []
        self._open = threading.Event()
        self._begun = threading.Event()
        self.ahead = Ahead(self._load, has_room, most=1)
        self.ahead.want(REFS[:1])
        assert self._begun.wait(10)

    def _load(self, chunk: ChunkRef) -> None:
        self._begun.set()
        self._open.wait(10)
        self.loaded.append(chunk)

    def pass_through(self, count: int) -> list[int]:
        """Open; which chunks came after the first, by number."""
        self._open.set()
        assert _until(lambda: len(self.loaded) == 1 + count)
        self.ahead.close()
        return [REFS.index(chunk) for chunk in self.loaded[1:]]


def test_the_nearest_chunk_of_all_readers_comes_first() -> None:
    gate = Gate()
    gate.ahead.want(REFS[10:13], distance=5)
    gate.ahead.want(REFS[20:23])
    assert gate.pass_through(6) == [20, 10, 21, 11, 22, 12]


def test_what_nobody_waits_for_any_more_is_not_loaded() -> None:
    gate = Gate()
    gate.ahead.want(REFS[10:20], owner="left")
    gate.ahead.want(REFS[20:22], distance=1000, owner="stayed")
    gate.ahead.cancel("left")
    assert gate.pass_through(2) == [20, 21]


def test_what_somebody_reads_meanwhile_is_not_loaded() -> None:
    gate = Gate()
    gate.ahead.want(REFS[10:13])
    gate.ahead.came(REFS[11].id)
    assert gate.pass_through(2) == [10, 12]


def test_a_full_queue_drops_what_does_not_fit() -> None:
    many = [ChunkRef(chunk_id(b"%d" % n), 10) for n in range(2 * MAX_PENDING)]
    gate = Gate()
    gate.ahead.want(many)
    gate.ahead.want([REFS[5]])
    gate._open.set()
    assert _until(lambda: len(gate.loaded) == 1 + MAX_PENDING)
    gate.ahead.want([REFS[6]])
    assert _until(lambda: len(gate.loaded) == 2 + MAX_PENDING)
    gate.ahead.close()
    assert gate.loaded[-1] == REFS[6]


def test_what_has_no_room_is_left_to_who_wants_it() -> None:
    gate = Gate(has_room=lambda size: size < 20)
    gate.ahead.want([ChunkRef(REFS[7].id, 20), REFS[8]])
    assert gate.pass_through(1) == [8]


def test_failures_end_no_thread() -> None:
    loaded: list[ChunkRef] = []

    def load(chunk: ChunkRef) -> None:
        loaded.append(chunk)
        raise MemoryError

    ahead = Ahead(load, most=1)
    ahead.want(REFS[:3])
    assert _until(lambda: len(loaded) == 3)
    ahead.close()
