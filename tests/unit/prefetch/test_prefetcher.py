"""Files under watch: what is wanted of the loader, and what is remembered."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from shardfs.formats.ids import chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest, Media
from shardfs.formats.tree import FileEntry
from shardfs.prefetch.cursors import Run
from shardfs.prefetch.orders import Orders
from shardfs.prefetch.prefetcher import MAX_WATCHES, Prefetcher, Reading
from shardfs.store.memory import AheadBytes

MB = 1 << 20
CHUNKS = tuple(ChunkRef(chunk_id(b"%d" % n), MB) for n in range(64))
MANIFEST = Manifest(64 * MB, CHUNKS)
PATH = b"models/m.safetensors"
NEVER = AheadBytes(0, 0, 0, 0)


def number(chunk: ChunkRef) -> int:
    return CHUNKS.index(chunk) if chunk in CHUNKS else len(CHUNKS)


class Loader:
    """Writes down what it is asked for, by the numbers of the chunks."""

    def __init__(self, far: Iterable[int] = ()) -> None:
        self.near: list[int] = []
        self.brought: list[int] = []
        self.cancelled: list[object] = []
        self._far = set(far)

    def ahead(self, chunks: Sequence[ChunkRef], _distance: int, _owner: object, /) -> None:
        self.near += map(number, chunks)

    def bring(self, chunks: Sequence[ChunkRef], _distance: int, _owner: object, /) -> int:
        found = self._far & set(map(number, chunks))
        self.brought += sorted(found)
        return len(found) * MB

    def cancel(self, owner: object, /) -> None:
        self.cancelled.append(owner)


def entry(manifest: Manifest = MANIFEST) -> FileEntry:
    return FileEntry(b"m.safetensors", manifest.size, manifest=manifest.id)


def nothing(_offset: int, _size: int) -> bytes:
    return b""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read(reading: Reading, start: int, end: int, size: int = 128 << 10) -> None:
    for offset in range(start, end, size):
        reading.read(offset, size)


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path / "orders", writable=True)


def test_readers_of_one_content_are_one_stream() -> None:
    loader = Loader()
    prefetcher = Prefetcher(loader, None, lambda: 0)
    one, other = (prefetcher.watch(entry(), MANIFEST, nothing) for _ in range(2))
    for offset in range(0, 16 * MB, MB):
        one.read(offset, MB // 2)
        other.read(offset + MB // 2, MB // 2)
    assert sorted(set(loader.near)) == list(range(1, max(loader.near) + 1))
    assert 17 <= max(loader.near) <= 20


def test_what_a_remote_has_is_brought_from_further_away() -> None:
    loader = Loader(far=range(64))
    read(Prefetcher(loader, None, lambda: 32 * MB).watch(entry(), MANIFEST, nothing), 0, 24 * MB)
    assert 16 + 24 <= max(loader.brought) <= 32 + 24
    assert max(loader.near) <= 24 + 4


def test_what_is_here_is_not_looked_for_further_away() -> None:
    loader = Loader()
    read(Prefetcher(loader, None, lambda: 32 * MB).watch(entry(), MANIFEST, nothing), 0, 24 * MB)
    assert loader.brought == []
    assert 24 <= max(loader.near) <= 24 + 4


def test_a_load_is_followed_by_the_next_one(orders: Orders) -> None:
    first = Prefetcher(Loader(), orders, lambda: 0)
    reading = first.watch(entry(), MANIFEST, nothing, PATH)
    read(reading, 40 * MB, 48 * MB)
    read(reading, 0, 8 * MB)
    reading.close()
    reading.close()
    first.close()
    assert first.counters(NEVER).orders_kept == 1

    loader = Loader()
    second = Prefetcher(loader, orders, lambda: 0)
    again = second.watch(entry(), MANIFEST, nothing, PATH)
    until(lambda: second.counters(NEVER).orders_found == 1)
    read(again, 40 * MB, 47 * MB)
    assert list(dict.fromkeys(loader.near))[:10] == [*range(40, 48), 0, 1]
    read(again, 47 * MB, 48 * MB)
    read(again, 0, 8 * MB)
    assert set(loader.near) == {*range(40, 48), *range(8)}  # nothing behind the ends of the ranges
    again.close()
    second.close()
    counters = second.counters(NEVER)
    assert counters.replayed_bytes == counters.replayed_used_bytes > 15 * MB
    assert counters.orders_kept == 0  # it is the same


def test_an_order_is_kept_when_the_last_reader_leaves(orders: Orders) -> None:
    prefetcher = Prefetcher(Loader(), orders, lambda: 0)
    one, other = (prefetcher.watch(entry(), MANIFEST, nothing, PATH) for _ in range(2))
    read(one, 0, 32 * MB)
    one.close()
    read(other, 32 * MB, 64 * MB)
    other.close()
    prefetcher.close()
    found = orders.find(PATH)
    assert found is not None
    assert found.covered == 64 * MB


@pytest.mark.parametrize("end", [MB, 24 * MB])
def test_a_glance_does_not_replace_an_order(orders: Orders, end: int) -> None:
    for stop in (64 * MB, end):
        prefetcher = Prefetcher(Loader(), orders, lambda: 0)
        reading = prefetcher.watch(entry(), MANIFEST, nothing, PATH)
        read(reading, 0, stop)
        reading.close()
        prefetcher.close()
    found = orders.find(PATH)
    assert found is not None
    assert found.covered == 64 * MB


def test_what_was_wanted_for_readers_that_are_gone_is_cancelled() -> None:
    loader = Loader()
    prefetcher = Prefetcher(loader, None, lambda: 0)
    reading = prefetcher.watch(entry(), MANIFEST, nothing, PATH)
    read(reading, 0, MB)
    reading.close()
    prefetcher.close()
    assert any(isinstance(owner, Run) for owner in loader.cancelled)


def test_a_tensor_is_read_ahead_from_its_first_page() -> None:
    tensor = b'"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'
    half = 32 * MB
    tensors = tensor % (b"a", half, 0, half), tensor % (b"b", half, half, 2 * half)
    text = (b"{%s,%s}" % tensors).ljust(4096 - 8)
    content = len(text).to_bytes(8, "little") + text
    size = len(content) + 2 * half
    manifest = Manifest(size, (*CHUNKS, ChunkRef(chunk_id(b"end"), size - 64 * MB)), Media("safetensors", "pytorch"))
    read_at = lambda offset, length: content[offset : offset + length]  # noqa: E731
    loader = Loader(far=range(64))
    prefetcher = Prefetcher(loader, None, lambda: 64 * MB)
    reading = prefetcher.watch(entry(manifest), manifest, read_at)
    prefetcher.close()  # waits for what it is about to learn
    reading.read(4096 + half, 4096)
    assert (loader.brought[0], loader.brought[-1]) == (32, 63)
    loader.brought.clear()
    reading.read(4096, 4096)
    assert (loader.brought[0], loader.brought[-1]) == (0, 32)


def test_few_files_are_remembered() -> None:
    prefetcher = Prefetcher(Loader(), None, lambda: 0)
    open_one = prefetcher.watch(entry(), MANIFEST, nothing, PATH)
    for one in range(2 * MAX_WATCHES):
        other = Manifest(1, (ChunkRef(chunk_id(b"x%d" % one), 1),))
        prefetcher.watch(entry(other), other, nothing)
    assert len(prefetcher._watches) == MAX_WATCHES
    assert MANIFEST.id in prefetcher._watches
    open_one.close()


def test_many_threads_may_read() -> None:
    loader = Loader()
    prefetcher = Prefetcher(loader, None, lambda: 0)

    def work(part: int) -> None:
        reading = prefetcher.watch(entry(), MANIFEST, nothing, PATH)
        read(reading, part * 8 * MB, (part + 1) * 8 * MB, 4096)
        reading.close()

    threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(loader.near)) >= 56
    assert next(iter(prefetcher._watches.values())).users == 0


def test_a_child_reads_on_whatever_other_threads_of_its_parent_did() -> None:
    busy, done = threading.Event(), threading.Event()

    class Slow(Loader):
        def cancel(self, _owner: object, /) -> None:
            busy.set()
            done.wait(20)

    prefetcher = Prefetcher(Slow(), None, lambda: 0)
    one, other = prefetcher.watch(entry(), MANIFEST, nothing, PATH), prefetcher.watch(entry(), MANIFEST, nothing)
    one.read(0, MB)
    one.close()
    assert busy.wait(10)
    child = os.fork()
    if not child:
        signal.alarm(10)  # ends a child that waits for a thread that does not exist
        other.read(MB, MB)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    done.set()
    assert status == 0
    prefetcher.close()


def test_a_failure_in_the_background_does_not_end_it(orders: Orders) -> None:
    media = Manifest(64 * MB, CHUNKS, media=Media("safetensors"))

    def broken(_offset: int, _size: int) -> bytes:
        raise MemoryError

    prefetcher = Prefetcher(Loader([1]), orders, lambda: 32 * MB)
    prefetcher.watch(entry(media), media, broken, b"broken").close()
    reading = prefetcher.watch(entry(), MANIFEST, nothing, PATH)
    read(reading, 0, 16 * MB)
    reading.close()
    until(lambda: prefetcher.orders_kept == 1)
    prefetcher.close()
