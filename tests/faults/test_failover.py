"""Two real servers with the same packs, and one of them breaks in every way while many threads read."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardfs.config import Settings
from shardfs.formats.ids import Kind, chunk_id
from shardfs.remotes.base import Remote
from shardfs.remotes.registry import open_remote
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from shardfs.transfer.standings import Standings
from tests import stores
from tests.serving import Server, serving
from tests.stores import noise

pytestmark = pytest.mark.network

SIZE = 200_000
DATA = [noise(i, SIZE) for i in range(60)]
IDS = [chunk_id(data) for data in DATA]
DEADLINE_S = 20.0
THREADS = 8


@dataclass
class Pair:
    """A reader over two servers; `near` is asked first."""

    reader: Reader
    standings: Standings
    near: Server
    far: Server
    near_root: Path

    def read(self, meanwhile: Callable[[], object] = lambda: None) -> float:
        """Read all chunks once in each of many threads, `meanwhile` after some; the longest seconds that one took."""
        errors: list[Exception] = []
        longest: list[float] = []
        some = threading.Semaphore(0)

        def work(first: int) -> None:
            try:
                for i in range(len(IDS)):
                    number = (first + i) % len(IDS)
                    started = time.monotonic()
                    assert self.reader.chunk(IDS[number], SIZE) == DATA[number]
                    longest.append(time.monotonic() - started)
                    some.release()
            except Exception as error:  # noqa: BLE001 - shown by the test
                errors.append(error)
                some.release()

        threads = [threading.Thread(target=work, args=(i * len(IDS) // THREADS,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            some.acquire()
        meanwhile()
        for thread in threads:
            thread.join()
        assert not errors
        return max(longest)


@contextmanager
def _opened(lazy: Store, near: Server, far: Server, root: Path, settings: Settings) -> Iterator[Pair]:
    remotes: dict[str, Remote] = {
        "near": open_remote(f"{near.url}/demo", name="near", settings=settings),
        "far": open_remote(f"{far.url}/demo", name="far", settings=settings),
    }
    standings = Standings(list(remotes))
    # Little memory, so that each chunk is asked for more than once.
    reader = Reader(lazy, remote=remotes.__getitem__, budget_bytes=2 << 20, deadline_s=DEADLINE_S, standings=standings)
    yield Pair(reader, standings, near, far, root)
    reader.close()
    for remote in remotes.values():
        remote.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    full = Store.create(tmp_path / "near" / "demo")
    for start in range(0, len(DATA), 10):
        with full.batch() as batch:
            for data in DATA[start : start + 10]:
                batch.put(Kind.CHUNK, data)
    lazy = Store.create(tmp_path / "lazy")
    for name in ("near", "far"):
        stores.know_remote_packs(lazy, full, name)
    full.close()
    shutil.copytree(tmp_path / "near", tmp_path / "far")
    settings = Settings(author="A <a@b>", cache_dir=tmp_path / "cache", deadline_s=DEADLINE_S)
    with (
        serving(tmp_path / "near", "read-only") as near,
        serving(tmp_path / "far", "read-only") as far,
        _opened(lazy, near, far, tmp_path / "near" / "demo", settings) as opened,
    ):
        yield opened
    lazy.close()


def test_a_server_is_killed(pair: Pair) -> None:
    assert pair.read(pair.near.kill) < DEADLINE_S / 2
    assert pair.standings.is_down("near")


def test_a_server_is_stopped_and_goes_on(pair: Pair) -> None:
    assert pair.read(lambda: pair.near.process.send_signal(signal.SIGSTOP)) < DEADLINE_S / 2
    assert pair.standings.is_down("near")
    before = pair.reader.traffic.moved
    assert pair.read() < DEADLINE_S / 2
    assert pair.reader.traffic.moved <= before + THREADS  # of 480 reads: nobody waits for it again
    pair.near.process.send_signal(signal.SIGCONT)
    until = time.monotonic() + 60
    while pair.standings.is_down("near"):
        pair.read()
        assert time.monotonic() < until


def test_a_server_sends_wrong_bytes(pair: Pair) -> None:
    def damage() -> None:
        for pack in pair.near_root.glob("packs/*/*.pack"):
            pack.chmod(0o644)
            with pack.open("r+b") as file:
                file.seek(100)
                file.write(bytes(pack.stat().st_size // 2))

    pair.read(damage)
    counters = pair.reader.counters()
    assert counters.damaged
    assert counters.healed


def test_a_server_has_packed_anew(pair: Pair) -> None:
    def remove() -> None:
        for pack in pair.near_root.glob("packs/*/*.pack"):
            pack.unlink()

    pair.read(remove)
    assert not pair.standings.is_down("near")  # it answers; it has nothing
