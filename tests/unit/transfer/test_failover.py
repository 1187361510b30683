"""Reads go on with another remote: each failure once, no read waits for one that is down, all of it comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.errors import ChunkCorruptedError, PackNotFoundError, RemoteUnavailableError
from shardfs.formats.ids import Kind, PackId, chunk_id
from shardfs.formats.manifest import ChunkRef
from shardfs.remotes import deadline, fresh
from shardfs.store.cache import Cache
from shardfs.store.store import Store
from shardfs.transfer import standings
from shardfs.transfer.reader import Reader, _instances
from shardfs.transfer.standings import Standings
from tests import stores
from tests.stores import FolderSource, flip, noise

SIZE = 300_000  # more than one window: each chunk is a request of its own
DATA = [noise(i, SIZE) for i in range(24)]
IDS = [chunk_id(data) for data in DATA]


class Remotes:
    """Sources by name, asked in the order in which they are named."""

    def __init__(self, **sources: FolderSource) -> None:
        self.sources = sources
        self.standings = Standings(list(sources))

    def reader(self, store: Store, *, cache: Cache | None = None, deadline_s: float = 20.0) -> Reader:
        return Reader(
            store,
            cache=cache,
            remote=self.sources.__getitem__,
            budget_bytes=4_000_000,
            deadline_s=deadline_s,
            standings=self.standings,
        )


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no silent remote, but where a test says so."""
    if "hasty" not in request.fixturenames:
        monkeypatch.setattr(standings, "LEAST_PATIENCE_S", 5.0)


@pytest.fixture
def hasty() -> None:
    """The usual patience."""


def fill(store: Store, together: int = 1) -> None:
    """All chunks; `together` of them in a pack."""
    for start in range(0, len(DATA), together):
        with store.batch() as batch:
            for data in DATA[start : start + together]:
                batch.put(Kind.CHUNK, data)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "full")
    fill(store)
    yield store
    store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """The same chunks in one pack."""
    store = Store.create(tmp_path / "other")
    fill(store, len(DATA))
    yield store
    store.close()


@pytest.fixture
def lazy(tmp_path: Path, full: Store) -> Iterator[Store]:
    """A store without packs that knows those of `full` at two remotes."""
    store = Store.create(tmp_path / "lazy")
    for name in ("near", "far"):
        stores.know_remote_packs(store, full, name)
    yield store
    for reader in list(_instances):
        reader.close()
    store.close()


@pytest.fixture
def near(full: Store) -> FolderSource:
    return FolderSource(full)


@pytest.fixture
def far(full: Store) -> FolderSource:
    return FolderSource(full)


def read_all(reader: Reader) -> None:
    assert [reader.chunk(id_, SIZE) for id_ in IDS] == DATA


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_first_of_the_settings_is_asked_and_no_other(lazy: Store, near: FolderSource, far: FolderSource) -> None:
    read_all(Remotes(near=near, far=far).reader(lazy))
    assert len(near.requests) == len(DATA)
    assert not far.requests


def test_one_that_is_down_is_asked_once_and_again_when_it_is_back(
    lazy: Store, near: FolderSource, far: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "FIRST_PAUSE_S", 100.0)
    remotes = Remotes(near=near, far=far)
    near.down = True
    reader = remotes.reader(lazy)
    read_all(reader)
    assert len(near.requests) == 1
    assert len(far.requests) == len(DATA)
    assert reader.traffic.moved == 1
    near.down = False
    remotes.standings._standings["near"].until = 0.0  # the pause is over
    again = remotes.reader(lazy)
    assert again.chunk(IDS[0], SIZE) == DATA[0]
    until(lambda: not remotes.standings.is_down("near"))
    assert near.requests[1][2] < SIZE  # a few bytes, for which nobody waited
    before = len(far.requests)
    assert again.chunk(IDS[1], SIZE) == DATA[1]
    assert len(far.requests) == before


@pytest.mark.usefixtures("hasty")
def test_a_silent_one_costs_a_moment_once(lazy: Store, near: FolderSource, far: FolderSource) -> None:
    silence = threading.Event()
    near.before = lambda: silence.wait(60)
    reader = Remotes(near=near, far=far).reader(lazy)
    started = time.monotonic()
    read_all(reader)
    took = time.monotonic() - started
    silence.set()
    assert took < 10  # the deadline is 20 s, for each of 24 reads
    assert len(near.requests) <= 4  # the first read, and looks whether it is back


@pytest.mark.usefixtures("hasty")
def test_what_was_brought_from_one_that_falls_silent_comes_from_the_other(
    lazy: Store, near: FolderSource, far: FolderSource, tmp_path: Path
) -> None:
    silence = threading.Event()
    near.before = lambda: silence.wait(60)
    cache = Cache.open(tmp_path / "cache", limit_bytes=64 << 20, free_floor_bytes=0)
    reader = Remotes(near=near, far=far).reader(lazy, cache=cache)
    reader.bring([ChunkRef(id_, SIZE) for id_ in IDS])
    until(lambda: near.requests)
    read_all(reader)
    silence.set()
    assert len(far.requests) == len(DATA)


def test_many_readers_do_not_notice_that_a_remote_dies(lazy: Store, near: FolderSource, far: FolderSource) -> None:
    remotes = Remotes(near=near, far=far)
    reader, errors, started = remotes.reader(lazy), list[Exception](), threading.Barrier(12)

    def die() -> None:
        near.down = near.down or len(near.requests) > 6

    near.before = die

    def work(first: int) -> None:
        started.wait()
        try:
            for i in range(len(IDS)):
                number = (first + i) % len(IDS)
                assert reader.chunk(IDS[number], SIZE) == DATA[number]
        except Exception as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(2 * i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(near.requests) <= 6 + 16 + 2  # those that were on their way, and looks whether it is back


def test_a_pack_that_one_has_no_longer_comes_from_the_other(lazy: Store, near: FolderSource, far: FolderSource) -> None:
    def gone() -> None:
        msg = "gone"
        raise PackNotFoundError(msg)

    near.before = gone
    remotes = Remotes(near=near, far=far)
    reader = remotes.reader(lazy)
    for _ in range(2):
        read_all(reader)
        reader._memory.clear()
    assert len(near.requests) == len(DATA)  # each pack once
    assert not remotes.standings.is_down("near")


def test_nothing_fails_while_any_copy_exists(lazy: Store, full: Store, other: Store) -> None:
    """One is down, and the other has packed anew: what it has now is learned."""
    down, repacked = FolderSource(full), FolderSource(other)
    down.down = True
    read = repacked.read_pack

    def missing(pack_id: PackId, offset: int, length: int) -> bytes:
        if not repacked.layout.pack(pack_id).exists():
            msg = "gone"
            raise PackNotFoundError(msg)
        return read(pack_id, offset, length)

    repacked.read_pack = missing  # type: ignore[method-assign]
    learned: list[str] = []

    def relearn(name: str) -> None:
        learned.append(name)
        stores.know_remote_packs(lazy, other, name)

    sources = {"near": down, "far": repacked}
    reader = Reader(lazy, remote=sources.__getitem__, relearn=relearn, standings=Standings(list(sources)))
    read_all(reader)
    assert learned == ["far"]


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.usefixtures("hasty")
def test_another_pack_of_another_remote_does_as_well(tmp_path: Path, full: Store, other: Store, silent: bool) -> None:
    lazy = Store.create(tmp_path / "lazy")
    stores.know_remote_packs(lazy, full, "near")
    stores.know_remote_packs(lazy, other, "far")
    near, far, silence = FolderSource(full), FolderSource(other), threading.Event()
    near.down = not silent
    near.before = lambda: silence.wait(60 if silent else 0)
    reader = Remotes(near=near, far=far).reader(lazy)
    started = time.monotonic()
    read_all(reader)
    took = time.monotonic() - started
    silence.set()
    assert took < 10
    assert len(near.requests) <= 4
    reader.close()
    lazy.close()


def test_wrong_bytes_are_told_once_and_others_are_asked(
    lazy: Store, near: FolderSource, far: FolderSource, caplog: pytest.LogCaptureFixture
) -> None:
    demands: list[bool] = []
    near.lies, near.before = 10_000, lambda: demands.append(fresh.is_demanded())
    remotes = Remotes(near=near, far=far)
    reader, told = remotes.reader(lazy), list[str]()
    reader.told = told.append
    for _ in range(3):
        remotes.standings._standings.clear()  # it is trusted again
        assert reader.chunk(IDS[0], SIZE) == DATA[0]
        reader._memory.clear()
    assert [record.message for record in caplog.records if "damaged" in record.message] == told
    assert len(told) == 1
    assert "at near" in told[0]
    assert demands == [False, True] * 3  # once more, past any cache in between
    assert reader.counters().healed == 3
    far.lies = 10_000
    with pytest.raises(ChunkCorruptedError, match=r"at far.*at near"):
        reader.chunk(IDS[1], SIZE)


def test_who_sent_no_wrong_bytes_may_answer_from_a_cache(lazy: Store, near: FolderSource, far: FolderSource) -> None:
    demands: list[bool] = []
    near.lies, far.before = 10_000, lambda: demands.append(fresh.is_demanded())
    reader = Remotes(near=near, far=far).reader(lazy)
    assert reader.chunk(IDS[0], SIZE) == DATA[0]
    assert demands == [False]  # a cache whose server is away has what it has, and nothing newer


def test_after_wrong_bytes_nobody_waits_for_one_that_is_away_while_another_has_them(
    lazy: Store, full: Store, near: FolderSource, far: FolderSource
) -> None:
    stores.know_remote_packs(lazy, full, "last")
    last, waits = FolderSource(full), list[float]()
    near.lies, far.down, far.before = 10_000, True, lambda: waits.append(deadline.remaining())
    remotes = Remotes(near=near, far=far, last=last)
    reader = remotes.reader(lazy, deadline_s=1000.0)
    assert reader.chunk(IDS[0], SIZE) == DATA[0]
    assert [wait <= 5.0 for wait in waits] == [True]  # seconds, in which a remote may repeat its request
    waits.clear()
    remotes.standings._standings.clear()
    last.down = True
    with pytest.raises(RemoteUnavailableError):
        reader.chunk(IDS[1], SIZE)
    assert [wait <= 5.0 for wait in waits] == [True, False]  # it has its time when all were asked


def test_the_error_of_all_is_told_when_all_fail(lazy: Store, near: FolderSource, far: FolderSource) -> None:
    near.down = far.down = True
    reader = Remotes(near=near, far=far).reader(lazy)
    with pytest.raises(RemoteUnavailableError, match=r"down; .* down"):
        reader.chunk(IDS[0], SIZE)
    assert (len(near.requests), len(far.requests)) == (1, 1)
    far.down = False
    assert reader.chunk(IDS[0], SIZE) == DATA[0]


def test_a_remote_that_says_that_it_is_not_available_is_not_asked(
    lazy: Store, near: FolderSource, far: FolderSource
) -> None:
    near.available = False  # type: ignore[attr-defined]
    read_all(Remotes(near=near, far=far).reader(lazy))
    assert not near.requests


def test_a_local_copy_that_is_damaged_is_healed_from_another_pack(full: Store, other: Store) -> None:
    stores.know_remote_packs(full, other, "far")
    damaged = full.find(IDS[3])[0]
    flip(full.layout.pack(damaged.pack), damaged.entry.offset + 7)
    reader = Remotes(far=FolderSource(other)).reader(full)
    assert reader.chunk(IDS[3], SIZE) == DATA[3]
    assert reader.counters().healed == 1
