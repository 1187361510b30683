"""The limit on bytes per second: kept by all threads together, and by no clock that would call it slow."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from shardfs import config
from shardfs.errors import RemoteError
from shardfs.formats.ids import PackId
from shardfs.remotes import deadline, meter
from shardfs.remotes.directory import DirectoryRemote
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.registry import open_remote
from shardfs.remotes.throttle import Bucket, Throttle, ThrottledRemote, shared
from shardfs.remotes.timedsocket import Timeouts
from tests.faults.badserver import answer, bad_server
from tests.stores import make_store

PACK = PackId(b"\5" * 32)


def ranged(size: int) -> bytes:
    return answer("206 Partial Content", bytes(size), f"Content-Range: bytes 0-{size - 1}/{size}")


def test_threads_share_the_limit() -> None:
    bucket = Bucket(100_000)
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: [bucket.take(1000) for _ in range(15)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started >= 0.45  # 60 000 bytes, of which 10 000 may be made up for


def test_unused_time_is_not_saved_for_long() -> None:
    bucket = Bucket(1000)
    bucket.take(1)
    time.sleep(0.3)
    assert bucket.take(200) >= 0.05


def test_one_limit_for_the_process() -> None:
    assert shared(0) is None
    assert shared(5000) is shared(5000)


@pytest.mark.network
def test_a_download_keeps_the_limit_and_is_not_called_slow() -> None:
    size = 40 << 10
    quick = Timeouts(connect_s=2, answer_s=2, idle_s=0.2, min_bytes_per_s=1 << 20)  # far more than the limit
    with bad_server(ranged(size)) as server:
        remote = HttpRemote(server.url, timeouts=quick, throttle=Throttle(64 << 10))
        started = time.monotonic()
        assert remote.read_pack(PACK, 0, size) == bytes(size)
        assert time.monotonic() - started >= 0.4
        remote.close()


@pytest.mark.network
def test_a_server_that_is_slow_by_itself_is_found_out_still() -> None:
    quick = Timeouts(connect_s=2, answer_s=2, idle_s=0.2, min_bytes_per_s=1 << 20)
    with bad_server() as server:
        head = answer("206 Partial Content", b"", "Content-Range: bytes 0-99999/100000", length=100_000)
        server._answers = [server.drip(head, b"x" * 10)]
        remote = HttpRemote(server.url, timeouts=quick, throttle=Throttle(64 << 10))
        with pytest.raises(RemoteError, match="slower"):
            remote.read_pack(PACK, 0, 100_000)
        remote.close()


@pytest.mark.network
def test_an_upload_keeps_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(bytes(40 << 10))
    quick = Timeouts(connect_s=2, answer_s=2, idle_s=0.2, min_bytes_per_s=1 << 20)
    receipt = json.dumps({"id": PACK.hex()}).encode()
    with bad_server(answer("404 Not Found"), answer("201 Created", receipt)) as server:
        remote = HttpRemote(server.url, timeouts=quick, throttle=Throttle(64 << 10))
        started = time.monotonic()
        remote.put_pack(path, PACK)
        assert time.monotonic() - started >= 0.4
        remote.close()


def test_other_remotes_keep_it_call_by_call(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "remote", 1)
    pack_id, size = next(iter(store.index.packs().items()))
    store.close()
    settings = dataclasses.replace(config.load(None), bwlimit=size * 4)
    remote = open_remote(str(tmp_path / "remote"), settings=settings)
    started = time.monotonic()
    for _ in range(3):
        remote.read_pack(pack_id, 0, size)
    assert time.monotonic() - started >= 0.6
    remote.close()


class Telling(DirectoryRemote):
    """Tells positions in place of sending; notes what was paid until then."""

    def __init__(self, folder: Path, positions: Sequence[int]) -> None:
        super().__init__(folder)
        self.positions = positions
        self.paid: list[int] = []
        self.paid_after: list[int] = []

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        for position in self.positions:
            meter.tell(position)
            self.paid_after.append(sum(self.paid))


def test_uploads_are_paid_for_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "remote", 1)[0].close()
    telling, limit = Telling(tmp_path / "remote", [0, 10, 30, 0, 20, 50]), Throttle(1000)
    monkeypatch.setattr(limit.sending, "take", telling.paid.append)
    ThrottledRemote(telling, limit).put_pack(tmp_path / "pack", PACK)
    assert telling.paid_after == [0, 10, 30, 30, 50, 80]  # what is sent again is paid again


class Timed(DirectoryRemote):
    """Notes the time that is left for its answer."""

    left_s = 0.0

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        self.left_s = deadline.remaining()
        return super().read_pack(pack_id, offset, length)


def test_time_that_the_limit_takes_is_no_time_of_the_remote(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "remote", 1)
    pack_id, size = next(iter(store.index.packs().items()))
    store.close()
    timed = Timed(tmp_path / "remote")
    with deadline.limit(0.3):
        ThrottledRemote(timed, Throttle(size * 2)).read_pack(pack_id, 0, size)
    assert timed.left_s > 0
