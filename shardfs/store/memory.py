"""Decoded plaintext in memory, up to a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager


class PlaintextMemory:
    """Verified plaintext by id, least recently used out first. Safe to share between threads.

    Attributes:
        budget_bytes: most bytes that are kept.
        hits: how often `get` found something.

    Bytes that are being read or decoded count against the budget too: what is kept makes room for them.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._items: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self.hits = 0

    def get(self, id_: bytes) -> bytes | None:
        """The plaintext of an id, or None."""
        with self._lock:
            found = self._items.get(id_)
            if found is not None:
                self._items.move_to_end(id_)
                self.hits += 1
            return found

    def holds(self, id_: bytes) -> bool:
        """Whether the plaintext of an id is here; does not count as use."""
        return id_ in self._items

    def put(self, id_: bytes, plaintext: bytes) -> None:
        """Keep verified plaintext; one larger than the whole budget is not kept."""
        size = len(plaintext)
        with self._lock:
            if id_ in self._items or size > self.budget_bytes:
                return
            self._items[id_] = plaintext
            self._kept += size
            self._make_room()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Count `size` bytes as in use for the block."""
        with self._lock:
            self._in_flight += size
            self._make_room()
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= size

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self._kept = 0

    @property
    def used_bytes(self) -> int:
        """Bytes kept and in flight."""
        return self._kept + self._in_flight

    def _make_room(self) -> None:
        while self._items and self._kept + self._in_flight > self.budget_bytes:
            _, gone = self._items.popitem(last=False)
            self._kept -= len(gone)
