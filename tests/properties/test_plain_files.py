"""Plain files, payloads and pins in any order, over several lives of the cache: within the limit, and pins hold."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardfs.formats.ids import CommitId
from shardfs.store.cache import Cache
from shardfs.store.pins import Pin

LIMIT = 1 << 20
NUMBERS = st.integers(0, 11)
SIZES = st.integers(1, LIMIT // 3)


def ident(number: int) -> bytes:
    return number.to_bytes(32, "big")


class CacheMachine(RuleBasedStateMachine):
    """The cache beside what must be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name) / "cache"
        self.sizes: dict[int, int] = {}  # of files that were made
        self.wished: set[int] = set()  # what the pin names
        self.pinned: set[int] = set()  # of that, what is there
        self.open: dict[int, int] = {}  # descriptors by number
        self.cache = self.opened()

    def opened(self) -> Cache:
        return Cache.open(self.directory, limit_bytes=LIMIT, free_floor_bytes=0)

    def there(self, number: int) -> bool:
        return number in self.sizes and self.cache.files.holds(ident(number), self.sizes[number])

    def is_sound(self, fd: int, number: int) -> bool:
        return os.pread(fd, LIMIT, 0) == bytes([number]) * self.sizes[number]

    @rule(number=NUMBERS, size=SIZES, is_finished=st.booleans())
    def make(self, number: int, size: int, is_finished: bool) -> None:
        was_there = self.there(number)
        if was_there and size != self.sizes[number]:
            return  # a content has one size
        unfinished = self.cache.files.begin(ident(number), size)
        assert not (was_there and unfinished)
        if unfinished is None:
            return
        with unfinished:
            unfinished.write(bytes([number]) * size)
            if is_finished:
                assert unfinished.finish() is not None
                self.release(number)
                self.sizes[number] = size
                self.pinned |= {number} & self.wished
        assert self.there(number) == is_finished

    @rule(number=NUMBERS, size=SIZES)
    def put(self, number: int, size: int) -> None:
        self.cache.put(ident(100 + number), 0, size, (), bytes(size))

    @rule(number=NUMBERS)
    def hold_open(self, number: int) -> None:
        if self.there(number) and number not in self.open:
            fd = self.cache.files.open(ident(number))
            assert fd is not None
            self.open[number] = fd

    @rule(number=NUMBERS)
    def release(self, number: int) -> None:
        if number in self.open:
            os.close(self.open.pop(number))

    @rule(numbers=st.sets(NUMBERS, max_size=3))
    def pin(self, numbers: set[int]) -> None:
        files = {ident(n): self.sizes.get(n, 1) for n in numbers}
        self.cache.pins.add(Pin("/repository", "v1", "", CommitId(bytes(32)), files))
        self.wished = numbers
        self.pinned = {n for n in numbers if self.there(n)}

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        assert {n for n in self.sizes if self.there(n)} == self.pinned

    @rule(number=NUMBERS)
    def evict(self, number: int) -> None:
        was_there = self.there(number)
        assert self.cache.files.evict([ident(number)]) == (self.sizes[number] if was_there else 0)
        self.pinned.discard(number)

    @rule()
    def live_again(self) -> None:
        self.cache.close()
        self.cache = self.opened()

    @precondition(lambda self: self.directory.exists())
    @rule()
    def lose_the_index(self) -> None:
        self.cache.close()
        (self.directory / "v3" / "cache.sqlite").write_bytes(b"no database" * 500)
        self.cache = self.opened()
        self.pinned.clear()
        assert not any(self.there(n) for n in self.sizes)

    @invariant()
    def is_within_the_limit(self) -> None:
        version = self.directory / "v3"
        files = [*version.glob("*.seg"), *version.glob("files/*"), version / "cache.sqlite"]
        assert sum(path.stat().st_size for path in files if path.exists()) <= LIMIT

    @invariant()
    def pins_hold(self) -> None:
        assert all(self.there(number) for number in self.pinned)

    @invariant()
    def what_is_open_stays_as_it_was(self) -> None:
        assert all(self.is_sound(fd, number) for number, fd in self.open.items())

    def teardown(self) -> None:
        for fd in self.open.values():
            os.close(fd)
        self.cache.close()
        self.folder.cleanup()


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(stateful_step_count=40)
