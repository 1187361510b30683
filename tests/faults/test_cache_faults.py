"""The cache on a bad disk: no error reaches the caller, and no payload of another id comes back."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from shardfs.store import segments
from shardfs.store.cache import Cache

MIB = 1 << 20


def ident(number: int) -> bytes:
    return number.to_bytes(32, "big")


def payload(number: int) -> bytes:
    return ident(number) * 300


def put(cache: Cache, number: int) -> None:
    cache.put(ident(number), 1, 9600, (), payload(number))


def holds(cache: Cache, number: int) -> bool:
    found = cache.get(ident(number))
    assert found is None or found.payload == payload(number)
    return found is not None


def open_cache(directory: Path) -> Cache:
    return Cache(directory, limit_bytes=64 * MIB, free_floor_bytes=0, pause_s=0)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = open_cache(tmp_path / "cache")
    for number in range(10):
        put(cache, number)
    yield cache
    cache.close()


def refuse(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_failing_write_keeps_nothing_and_reads_go_on(cache: Cache, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", lambda *_: refuse(code))
        put(cache, 10)
        assert not holds(cache, 10)
        assert holds(cache, 1)
    put(cache, 10)
    assert holds(cache, 10)


def test_short_writes_are_completed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def short(fd: int, pieces: list[memoryview], offset: int) -> int:
        return real(fd, [pieces[0][:7]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    put(cache, 10)
    monkeypatch.undo()
    assert holds(cache, 10)


def test_write_that_makes_no_progress_ends(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    put(cache, 10)
    assert not holds(cache, 10)


def test_puts_pause_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, limit_bytes=64 * MIB, free_floor_bytes=0, pause_s=3600)
    put(cache, 1)
    attempts: list[int] = []

    def fail(*_: object) -> NoReturn:
        attempts.append(1)
        refuse(errno.ENOSPC)

    monkeypatch.setattr(os, "pwritev", fail)
    for number in range(2, 50):
        put(cache, number)
    assert len(attempts) == 1
    assert holds(cache, 1)
    cache.close()


def test_failure_is_warned_about_once(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: refuse(errno.ENOSPC))
    with caplog.at_level(logging.DEBUG, "shardfs.store.cache"):
        for number in range(10, 20):
            put(cache, number)
    assert [r.levelname for r in caplog.records if "failed" in r.message].count("WARNING") == 1


def test_really_full_disk(tmp_path: Path) -> None:
    """A file size limit is the full disk that a test can have without privileges."""
    program = """
import resource, signal, sys
from pathlib import Path
from shardfs.store.cache import Cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = Cache.open(Path(sys.argv[1]), limit_bytes=64 << 20, free_floor_bytes=0)
cache.put(bytes(32), 1, 9, (), b"something")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for number in range(1, 100):
    cache.put(number.to_bytes(32, "big"), 1, 50_000, (), bytes(50_000))
assert cache.get(bytes(32)).payload == b"something"
cache.close()
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    cache = open_cache(directory)
    put(cache, 1)
    assert not holds(cache, 1)
    assert list(directory.iterdir()) == []
    cache.close()


@pytest.mark.parametrize("name", ["connect", "touch"])
def test_read_only_directory_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "connect":
        error = sqlite3.OperationalError("attempt to write a readonly database")

        def fail(*_: object, **__: object) -> NoReturn:
            raise error

        monkeypatch.setattr(sqlite3, "connect", fail)
    else:
        monkeypatch.setattr(Path, "touch", lambda *_, **__: refuse(errno.EROFS))
    cache = open_cache(tmp_path / "cache")
    put(cache, 1)
    assert not holds(cache, 1)
    cache.discard(ident(1))
    assert not cache.contains(ident(1))
    assert cache.stats().records == 0
    monkeypatch.undo()
    put(cache, 1)
    assert holds(cache, 1)
    cache.close()


def test_file_in_place_of_the_directory_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = Cache.open(tmp_path / "cache", limit_bytes=MIB, free_floor_bytes=0)
    put(cache, 1)
    assert not holds(cache, 1)
    assert (tmp_path / "cache").read_text() == "a file"
    cache.close()


def test_deleted_directory_is_made_again(cache: Cache) -> None:
    assert holds(cache, 1)
    shutil.rmtree(cache.directory)
    assert not holds(cache, 1)
    put(cache, 1)
    assert holds(cache, 1)
    shutil.rmtree(cache.directory / "v3")
    put(cache, 2)
    assert holds(cache, 2)
    assert not holds(cache, 1)


def test_directory_deleted_again_and_again_under_load(cache: Cache) -> None:
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            shutil.rmtree(cache.directory, ignore_errors=True)

    thread = threading.Thread(target=delete)
    thread.start()
    for number in range(300):
        put(cache, number)
        holds(cache, number)
    stop.set()
    thread.join()
    put(cache, 1)
    assert holds(cache, 1)


def test_deleted_segment_is_a_miss_and_is_replaced(cache: Cache) -> None:
    cache.close()
    for path in cache.directory.glob("v3/*.seg"):
        path.unlink()
    assert not holds(cache, 1)
    put(cache, 1)
    assert holds(cache, 1)


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "zeros"])
def test_damaged_segment_is_a_miss(cache: Cache, damage: str) -> None:
    (path,) = cache.directory.glob("v3/*.seg")
    size = path.stat().st_size
    content = {"empty": b"", "cut": path.read_bytes()[: size // 2], "garbage": os.urandom(size), "zeros": bytes(size)}
    path.write_bytes(content[damage])
    kept = [number for number in range(10) if holds(cache, number)]
    assert kept == (list(range(4)) if damage == "cut" else []) or kept == list(range(5))
    put(cache, 9)
    assert holds(cache, 9)


def test_swapped_records_are_not_confused(cache: Cache) -> None:
    with sqlite3.connect(cache.directory / "v3" / "cache.sqlite") as database:
        database.execute("UPDATE records SET offset = 0")
    database.close()
    assert [number for number in range(10) if holds(cache, number)] == [0]


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "head", "middle"])
@pytest.mark.parametrize("live", [True, False])
def test_damaged_index_heals(cache: Cache, damage: str, suffix: str, live: bool) -> None:
    if not live:
        cache.close()
    path = cache.directory / "v3" / f"cache.sqlite{suffix}"
    content = bytearray(path.read_bytes()) if path.exists() else bytearray(100_000)
    if damage == "empty":
        content = bytearray()
    elif damage == "garbage":
        content = bytearray(random.Random(1).randbytes(len(content)))
    elif damage == "head":
        content[:200] = bytes(200)
    else:
        content[4096:] = random.Random(2).randbytes(len(content[4096:]))
    path.write_bytes(content)
    for number in range(10):
        holds(cache, number)
    for number in range(10, 20):
        put(cache, number)
    cache.close()  # a live connection may still answer from its own memory; the next process sees the disk
    again = open_cache(cache.directory)
    for number in range(40):
        holds(again, number)
        put(again, number)
    assert all(holds(again, number) for number in range(20, 40))
    again.close()


def test_flipped_bits_of_the_index_heal(cache: Cache) -> None:
    cache.close()
    path = cache.directory / "v3" / "cache.sqlite"
    content = path.read_bytes()
    schema = content.index(b"CREATE TABLE") * 8 + 7  # the high bits of its letters: then it is no text
    spots = [
        *range(16 * 8, 28 * 8),
        *range(schema, schema + 200 * 8, 8),
        *random.Random(3).sample(range(len(content) * 8), 200),
    ]
    for spot in spots:
        damaged = bytearray(content)
        damaged[spot // 8] ^= 1 << spot % 8
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        path.write_bytes(damaged)
        again = open_cache(cache.directory)
        for number in range(12):
            holds(again, number)
        for number in range(20, 24):
            put(again, number)
        assert holds(again, 23), spot
        again.close()


def test_index_of_something_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "v3").mkdir()
    database = sqlite3.connect(tmp_path / "v3" / "cache.sqlite")
    database.execute("CREATE TABLE records (something TEXT)")
    database.commit()
    database.close()
    cache = open_cache(tmp_path)
    put(cache, 1)
    put(cache, 1)
    assert holds(cache, 1)
    cache.close()


@pytest.mark.parametrize(
    "change",
    ["stored_size = 1 << 50", "stored_size = -1", "offset = 'x'", "bases = 'text'", "codec = 1 << 40", "bases = x'00'"],
)
def test_absurd_values_in_the_index_are_refused(cache: Cache, change: str) -> None:
    with sqlite3.connect(cache.directory / "v3" / "cache.sqlite") as database:
        database.execute(f"UPDATE records SET {change}")
    database.close()
    assert not holds(cache, 1)
    put(cache, 1)
    assert holds(cache, 1)


def test_index_locked_by_a_stuck_process(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.store.cache_index._BUSY_TIMEOUT_MS", 50)
    cache.close()
    other = sqlite3.connect(cache.directory / "v3" / "cache.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = open_cache(cache.directory)
    put(impatient, 10)
    assert holds(impatient, 1), "readers never wait for a writer"
    assert not holds(impatient, 10)
    other.execute("ROLLBACK")
    other.close()
    put(impatient, 10)
    assert holds(impatient, 10)
    impatient.close()


def test_segment_given_up_by_another_process_during_a_put(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = segments.SegmentWriter.write

    def evicted_meanwhile(self: segments.SegmentWriter, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]
        other = Cache.open(cache.directory, limit_bytes=0, free_floor_bytes=0)
        other.close()

    monkeypatch.setattr(segments.SegmentWriter, "write", evicted_meanwhile)
    put(cache, 10)
    assert not holds(cache, 10)
    monkeypatch.undo()
    put(cache, 10)
    assert holds(cache, 10)


def test_killed_while_writing(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from shardfs.store.cache import Cache
cache = Cache.open(Path(sys.argv[1]), limit_bytes=8 << 20, free_floor_bytes=0)
number = 0
while True:
    ident = (number % 1000).to_bytes(32, "big")
    cache.put(ident, 1, 9600, (), ident * 300)
    number += 1
    if number == 300:
        print("going", flush=True)
"""
    for delay in range(5):
        with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"going\n"
            threading.Event().wait(delay / 200)
            process.kill()
        cache = Cache.open(tmp_path, limit_bytes=8 * MIB, free_floor_bytes=0)
        assert any(holds(cache, number) for number in range(1000))
        assert sum(path.stat().st_size for path in tmp_path.glob("v3/*.seg")) <= 8 * MIB
        cache.close()
