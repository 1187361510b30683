from __future__ import annotations

from shardfs.store.memory import PlaintextMemory


def test_least_recently_used_goes_first() -> None:
    memory = PlaintextMemory(30)
    for name in (b"a", b"b", b"c"):
        memory.put(name, bytes(10))
    assert memory.get(b"a") is not None
    memory.put(b"d", bytes(10))
    assert memory.get(b"b") is None
    assert memory.get(b"a") is not None
    assert memory.used_bytes == 30


def test_bytes_in_flight_count() -> None:
    memory = PlaintextMemory(30)
    memory.put(b"a", bytes(10))
    memory.put(b"b", bytes(10))
    with memory.reserve(15):
        assert memory.get(b"a") is None
        assert memory.used_bytes == 25
    assert memory.get(b"b") is not None
    assert memory.used_bytes == 10


def test_more_than_the_budget_is_not_kept() -> None:
    memory = PlaintextMemory(5)
    memory.put(b"a", bytes(6))
    assert memory.get(b"a") is None
    assert memory.used_bytes == 0
