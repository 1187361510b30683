"""Decoded plaintext in memory, up to a budget of bytes."""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from shardfs import allocator, threads

LEAST_IN_FLIGHT: Final = 16 << 20  # bytes; the largest chunk can be decoded whatever the budget
PATIENCE_S: Final = 2.0  # decoders take milliseconds; who holds memory for longer waits for a remote: others go on


class AheadBytes(NamedTuple):
    """What became of chunks that were loaded before anybody wanted them, in bytes of plaintext.

    Attributes:
        loaded: all of them.
        used: of chunks that somebody wanted later, or while they were on their way.
        wasted: of chunks that were given up unread.
        waiting: of chunks that are in memory or on their way, and not wanted yet.
    """

    loaded: int
    used: int
    wasted: int
    waiting: int


class _Fresh(NamedTuple):
    plaintext: bytes
    put: int  # bytes that had been put until then


class PlaintextMemory:
    """Verified plaintext by id. Safe to share between threads.

    What was used least recently goes first. What was loaded ahead and is not used yet stays for as long as it takes to
    load the whole budget anew.

    Attributes:
        budget_bytes: most bytes that are kept.
        hits: how often `get` found something.

    Bytes that are being read or decoded count against the budget too: what is kept makes room for them, and who wants
    more than the whole budget at once waits. So do bytes that were lent to others, up to half of it.
    """

    def __init__(self, budget_bytes: int, idle_s: float | None = None) -> None:
        """Keep up to `budget_bytes`; after `idle_s` seconds without use (None: never) forget all of it."""
        self.budget_bytes = budget_bytes
        self._idle_s = idle_s
        self._items: OrderedDict[bytes, bytes] = OrderedDict()
        self._fresh: OrderedDict[bytes, _Fresh] = OrderedDict()  # loaded ahead and not wanted yet
        self._early: dict[bytes, int] = {}  # bytes of these, and of those that are on their way
        self._put = 0  # bytes, ever
        self._kept = self._in_flight = self._lent = self._waiting = 0
        self._loaded = self._used = self._wasted = 0
        self._lock = threading.Condition(threading.Lock())
        self._mine = threading.local()
        self._used_at = 0.0
        self._is_watched = False
        self.hits = 0

    def get(self, id_: bytes) -> bytes | None:
        """The plaintext of an id, or None."""
        with self._lock:
            if self._early and (size := self._early.pop(id_, None)) is not None:
                self._waiting -= size
                self._used += size
                if (fresh := self._fresh.pop(id_, None)) is not None:
                    self._items[id_] = fresh.plaintext
            found = self._items.get(id_)
            if found is not None:
                self._items.move_to_end(id_)
                self._used_at = time.monotonic()
                self.hits += 1
            return found

    def holds(self, id_: bytes) -> bool:
        """Whether the plaintext of an id is here; does not count as use."""
        return id_ in self._items or id_ in self._fresh

    def put(self, id_: bytes, plaintext: bytes) -> None:
        """Keep verified plaintext; one larger than the whole budget is not kept."""
        size = len(plaintext)
        share = max(1, self.budget_bytes // 4)
        with self._lock:
            if self.holds(id_) or size > self.budget_bytes:
                return
            is_share_full = (self._put + size) // share > self._put // share
            self._put += size
            if id_ in self._early:
                self._fresh[id_] = _Fresh(plaintext, self._put)
            else:
                self._items[id_] = plaintext
            self._kept += size
            self._make_room()
            self._used_at = time.monotonic()
            if self._idle_s is not None and not self._is_watched:
                forget = partial(_forget_when_idle, weakref.ref(self), self._idle_s)
                self._is_watched = threads.start(forget, "idle") is not None
        if is_share_full:
            allocator.give_back_surplus()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Count `size` bytes as in use for the block; it begins when there is room, after `PATIENCE_S` at the latest.

        Blocks in blocks of the same thread begin at once: their memory is needed to free that of the outer one.
        """
        outer = getattr(self._mine, "depth", 0)
        with self._lock:
            if not outer and not self._has_room(size):
                self._lock.wait_for(lambda: self._has_room(size), PATIENCE_S)
            self._in_flight += size
            self._make_room()
        self._mine.depth = outer + 1
        try:
            yield
        finally:
            self._mine.depth = outer
            with self._lock:
                self._in_flight -= size
                self._lock.notify_all()  # what one gives back may be enough for several

    def lend(self, size: int) -> None:
        """Others have `size` bytes more in memory, or fewer when it is negative; what is kept makes room for them."""
        with self._lock:
            self._lent += size
            self._make_room()

    def expect(self, id_: bytes, size: int) -> None:
        """A chunk that is not here is loaded before anybody wants it; the next `get` of it makes it count as used."""
        with self._lock:
            if id_ not in self._early and not self.holds(id_):
                self._early[id_] = size
                self._waiting += size
                self._loaded += size

    def give_up(self, id_: bytes) -> None:
        """A chunk that was expected could not be loaded."""
        with self._lock:
            self._waste(id_)

    def has_room_ahead(self, size: int) -> bool:
        """Whether `size` more bytes may be loaded ahead: the rest of the budget is for what is wanted now."""
        return self._in_flight + self._waiting + size <= self.budget_bytes // 4

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self._fresh.clear()
            self._kept = 0
            for id_ in list(self._early):
                self._waste(id_)

    @property
    def used_bytes(self) -> int:
        """Bytes kept and in flight."""
        return self._kept + self._in_flight

    @property
    def ahead_bytes(self) -> AheadBytes:
        """What became of the chunks that were loaded ahead."""
        return AheadBytes(self._loaded, self._used, self._wasted, self._waiting)

    def _has_room(self, size: int) -> bool:
        return not self._in_flight or self._in_flight + size <= max(self.budget_bytes, LEAST_IN_FLIGHT)

    def _make_room(self) -> None:
        most = self.budget_bytes - self._in_flight - min(self._lent, self.budget_bytes // 2)
        while self._kept and self._kept > most:
            id_ = next(iter(self._fresh), None)
            if id_ is not None and (not self._items or self._put - self._fresh[id_].put > self.budget_bytes):
                gone = self._fresh.pop(id_).plaintext
                self._waste(id_)
            else:
                _, gone = self._items.popitem(last=False)
            self._kept -= len(gone)

    def _waste(self, id_: bytes) -> None:
        if (size := self._early.pop(id_, None)) is not None:
            self._waiting -= size
            self._wasted += size

    def _idle_left_s(self) -> float:
        """Seconds until all is forgotten if nothing happens; 0 when it has just been."""
        with self._lock:
            left = self._used_at + (self._idle_s or 0) - time.monotonic()
            if left <= 0 and not self._in_flight:
                self._is_watched = False
                left = 0
        if left:
            return max(left, 0.1)
        self.clear()
        return 0


def _forget_when_idle(memory: weakref.ref[PlaintextMemory], idle_s: float) -> None:
    left = idle_s
    while left:
        time.sleep(left)
        found = memory()
        left = 0 if found is None else found._idle_left_s()
        del found
    allocator.give_back()
