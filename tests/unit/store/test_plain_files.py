"""Plain files of the cache: within its limit, one writer each, nothing left behind by killed processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardfs.formats.ids import CommitId
from shardfs.store.cache import Cache
from shardfs.store.pins import Pin, Pins

MIB = 1 << 20


def ident(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = open_cache(tmp_path / "cache")
    yield cache
    cache.close()


def open_cache(directory: Path, limit_bytes: int = 16 * MIB) -> Cache:
    return Cache(directory, limit_bytes=limit_bytes, free_floor_bytes=0, pause_s=0)


def put(cache: Cache, number: int, size: int = MIB) -> bool:
    unfinished = cache.files.begin(ident(number), size)
    if unfinished is None:
        return False
    with unfinished:
        unfinished.write(bytes([number % 256]) * size)
        return unfinished.finish() is not None


def holds(cache: Cache, number: int, size: int = MIB) -> bool:
    fd = cache.files.open(ident(number)) if cache.files.holds(ident(number), size) else None
    if fd is None:
        return False
    assert os.pread(fd, size, 0) == bytes([number % 256]) * size
    os.close(fd)
    return True


def file_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("v3/*.seg")) + sum(
        path.stat().st_size for path in directory.glob("v3/files/*")
    )


def pin(cache: Cache, *numbers: int) -> Pin:
    found = Pin("/repository", "v1", "", CommitId(ident(1)), {ident(n): MIB for n in numbers})
    cache.pins.add(found)
    return found


def test_what_was_written_is_found(cache: Cache) -> None:
    assert put(cache, 1)
    assert holds(cache, 1)
    assert cache.files.totals() == (1, MIB)
    assert not put(cache, 1), "once is enough"
    assert cache.files.made == 1


def test_unfinished_file_is_not_found_and_goes(cache: Cache) -> None:
    unfinished = cache.files.begin(ident(1), 10)
    assert unfinished is not None
    with unfinished:
        unfinished.write(b"half")
        assert not cache.files.holds(ident(1), 10)
        assert unfinished.finish() is None
    assert list(cache.directory.glob("v3/files/*")) == []
    assert cache.stats().reserved_bytes < MIB


def test_one_writer_at_a_time(cache: Cache) -> None:
    first = cache.files.begin(ident(1), 1)
    assert first is not None
    other = open_cache(cache.directory)
    with first:
        assert other.files.is_being_written(ident(1))
        assert not put(other, 1, 1)
    assert not other.files.is_being_written(ident(1))
    assert put(other, 1, 1)
    other.close()


def test_files_and_segments_share_one_limit(cache: Cache) -> None:
    for number in range(40):
        if number % 2:
            assert put(cache, number)
        else:
            cache.put(ident(number), 1, MIB, (), bytes(MIB))
        assert cache.stats().reserved_bytes <= 16 * MIB
        assert file_bytes(cache.directory) <= 16 * MIB
    assert holds(cache, 39)
    assert not holds(cache, 1)
    assert cache.get(ident(38)) is not None


def test_least_recently_used_goes_first(cache: Cache) -> None:
    for number in range(10):
        assert put(cache, number)
    for number in range(10, 30):
        assert holds(cache, 0)
        assert put(cache, number)
    assert holds(cache, 0)
    assert not holds(cache, 1)


def test_what_cannot_fit_drives_nothing_out(cache: Cache) -> None:
    assert put(cache, 1)
    assert not put(cache, 2, 17 * MIB)
    pin(cache, 1)
    assert not put(cache, 2, 15 * MIB)
    assert holds(cache, 1)


def test_pinned_files_stay_and_payloads_make_room(cache: Cache) -> None:
    for number in range(3):
        assert put(cache, number)
    kept = pin(cache, 0, 2)
    for number in range(10, 50):
        put(cache, number)
    assert [holds(cache, number) for number in range(3)] == [True, False, True]
    cache.clear()
    assert cache.files.totals() == (2, 2 * MIB)
    cache.pins.remove(kept)
    cache.clear()
    assert cache.files.totals() == (0, 0)


def test_pins_of_others_are_seen(cache: Cache) -> None:
    others = Pins(cache.directory)
    kept = pin(cache, 1)
    assert others.ids() == kept.files
    moved = replace(kept, files={ident(2): MIB})
    cache.pins.add(moved)
    assert others.all() == [moved]
    assert others.ids() == moved.files
    cache.pins.remove(moved)
    assert not others.ids()


def test_damaged_pin_is_left_out(cache: Cache) -> None:
    kept = pin(cache, 1)
    for number, text in enumerate(("", "[]", "{}", '{"repository": 1, "revision": "", "path": "", "files": {}}')):
        (cache.directory / "pins" / f"{number}.json").write_text(text)
    assert Pins(cache.directory).all() == [kept]


def test_pins_that_cannot_be_read_let_nothing_go(cache: Cache) -> None:
    assert put(cache, 1)
    (cache.directory / "pins").mkdir(exist_ok=True)
    (cache.directory / "pins" / "x.json").mkdir()
    for number in range(2, 30):
        put(cache, number)
    cache.clear()
    assert holds(cache, 1)


def test_free_floor_holds_for_files(tmp_path: Path) -> None:
    free = 8 * MIB

    def free_bytes(_: Path) -> int:
        return free - file_bytes(tmp_path)

    cache = Cache(tmp_path, limit_bytes=100 * MIB, free_floor_bytes=4 * MIB, free_bytes=free_bytes, pause_s=0)
    for number in range(6):
        assert put(cache, number)
        assert free_bytes(tmp_path) >= 4 * MIB
    assert not put(cache, 7, 5 * MIB)
    cache.close()


def test_files_that_the_disk_has_no_room_for_drive_nothing_out(tmp_path: Path) -> None:
    cache = Cache(
        tmp_path,
        limit_bytes=100 * MIB,
        free_floor_bytes=4 * MIB,
        free_bytes=lambda _: 8 * MIB - file_bytes(tmp_path),
        pause_s=60,
    )
    for number in range(3):
        cache.put(ident(number), 1, MIB, (), bytes(MIB))
    assert not put(cache, 9, 30 * MIB)
    assert all(cache.contains(ident(number)) for number in range(3))
    assert not cache.is_paused()
    cache.close()


def test_free_floor_holds_while_two_files_are_written(tmp_path: Path) -> None:
    def free_bytes(_: Path) -> int:
        return 10 * MIB - file_bytes(tmp_path)

    cache = Cache(tmp_path, limit_bytes=100 * MIB, free_floor_bytes=4 * MIB, free_bytes=free_bytes, pause_s=0)
    one, other = (cache.files.begin(ident(number), 4 * MIB) for number in (1, 2))
    assert one is not None
    assert other is not None
    with one, other:
        for unfinished in (one, other, one, other, one, other):
            unfinished.write(bytes(MIB))
        with pytest.raises(OSError, match=r"cache\.min_free"):
            one.write(bytes(MIB))
    assert free_bytes(tmp_path) == 10 * MIB
    assert put(cache, 1, 4 * MIB)
    cache.close()


def test_older_version_is_removed(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "cache.sqlite").write_text("old")
    cache = open_cache(tmp_path)
    assert put(cache, 1)
    assert not (tmp_path / "v2").exists()
    cache.close()


@pytest.mark.parametrize("stray", ["f" * 64, "0" * 16 + ".tmp", "something"])
def test_stray_files_are_removed(cache: Cache, stray: str) -> None:
    assert put(cache, 1)
    cache.close()
    (cache.directory / "v3" / "files" / stray).write_text("nobody counts this")
    again = open_cache(cache.directory)
    assert again.stats().files == 1
    assert holds(again, 1)
    assert len(list(cache.directory.glob("v3/files/*"))) == 1
    again.close()


def test_deleted_file_is_made_again(cache: Cache) -> None:
    assert put(cache, 1)
    for path in cache.directory.glob("v3/files/*"):
        path.unlink()
    assert not holds(cache, 1)
    assert put(cache, 1)
    assert holds(cache, 1)


def test_wipe_by_another_process_while_writing(cache: Cache) -> None:
    unfinished = cache.files.begin(ident(1), 1)
    assert unfinished is not None
    with unfinished:
        unfinished.write(b"x")
        cache.close()
        (cache.directory / "v3" / "cache.sqlite").write_bytes(b"garbage" * 1000)
        other = open_cache(cache.directory)
        assert put(other, 2)
        other.close()
        assert unfinished.finish() is None
    assert put(cache, 1, 1)
    assert cache.files.totals() == (2, MIB + 1)


_WRITER = """
import os, sys
from pathlib import Path
from shardfs.store.cache import Cache
cache = Cache.open(Path(sys.argv[1]), limit_bytes=int(sys.argv[2]), free_floor_bytes=0)
number = 0
while True:
    number += 1
    unfinished = cache.files.begin((number % 40).to_bytes(32, "big"), 1 << 20)
    if unfinished is not None:
        with unfinished:
            for _ in range(16):
                unfinished.write(bytes([number % 40]) * (1 << 16))
            unfinished.finish()
    if number == 5:
        print("going", flush=True)
"""


def test_killed_writers_leave_nothing_that_stays(tmp_path: Path) -> None:
    for delay in range(6):
        with subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path, str(8 * MIB)], stdout=subprocess.PIPE) as one:
            assert one.stdout is not None
            assert one.stdout.readline() == b"going\n"
            time.sleep(delay / 300)
            one.send_signal(signal.SIGKILL)
        assert file_bytes(tmp_path) <= 8 * MIB
        cache = open_cache(tmp_path, 8 * MIB)
        rows = cache.files.rows()
        assert all(not row.writer for row in rows)
        assert {path.name for path in tmp_path.glob("v3/files/*")} == {row.id.hex() for row in rows}
        for number in range(40):
            holds(cache, number)
        cache.close()


def _fill(directory: Path, first: int) -> None:
    cache = open_cache(directory, 8 * MIB)
    for number in range(first, first + 60):
        put(cache, number, MIB + number)
        cache.put(ident(1000 + number), 1, 100_000, (), bytes(100_000))
        assert cache.stats().reserved_bytes <= 8 * MIB
        holds(cache, number + 1, MIB + number + 1)
    cache.close()


def test_two_processes_stay_within_the_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path, first)) for first in (0, 30)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert file_bytes(tmp_path) <= 8 * MIB
