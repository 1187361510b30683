from __future__ import annotations

import shutil
import time

import pytest

from shardfs import config
from shardfs.formats.ids import CommitId
from shardfs.maintenance.doctor import clock, diagnose, fix
from shardfs.maintenance.findings import Finding
from shardfs.store.store import Store
from tests import stores
from tests.stores import commit
from tests.unit.maintenance.conftest import check, objects_of

MAIN = "refs/heads/main"


@pytest.fixture
def tip(store: Store) -> CommitId:
    """Two commits."""
    commit(store, {"a": b"1"})
    return commit(store, {"a": b"2"})


def _look(store: Store) -> list[Finding]:
    return [f for f in diagnose(store, config.load(None)) if f.level in ("warning", "error") and "mounts" not in f.what]


def _mend(store: Store) -> list[Finding]:
    return fix(store, config.load(None))


def test_nothing_is_wrong(store: Store, tip: CommitId) -> None:
    assert _look(store) == []
    assert _mend(store) == []
    assert {f.level for f in diagnose(store, config.load(None))} <= {"ok", "note", "warning"}


@pytest.mark.parametrize("data", [b"", b"junk\n", bytes(32).hex().encode() + b"\n", None])
def test_refs_come_back_from_their_logs(store: Store, tip: CommitId, data: bytes | None) -> None:
    path = store.layout.ref(MAIN)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    assert any(MAIN in f.what for f in _look(store))
    _mend(store)
    assert store.refs.get(MAIN) == tip
    assert _look(store) == []


def test_a_ref_without_a_log_is_an_error(store: Store, tip: CommitId) -> None:
    store.layout.ref(MAIN).write_bytes(b"")
    store.layout.log(MAIN).unlink()
    assert any(f.level == "error" and MAIN in f.what for f in _mend(store))


def test_deleted_refs_stay_deleted(store: Store, tip: CommitId) -> None:
    store.refs.move("refs/heads/x", None, tip)
    store.refs.move("refs/heads/x", tip, None)
    assert _look(store) == []


def test_head_and_listings(store: Store, tip: CommitId) -> None:
    store.layout.head.write_bytes(b"\0")
    store.layout.info_refs.write_bytes(b"{}")
    store.layout.info_packs.unlink()
    assert len(_look(store)) == 3
    _mend(store)
    assert _look(store) == []
    assert store.refs.head_commit() == tip


def test_index_is_mended(store: Store, tip: CommitId) -> None:
    stores.sql(store, "DELETE FROM entries")
    assert any("index is wrong about 2 packs" in f.what for f in _look(store))
    _mend(store)
    assert _look(store) == []
    assert check(store).ok


def test_a_broken_index_is_made_again(store: Store, tip: CommitId) -> None:
    store.index.close()
    data = bytearray(store.layout.index.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    store.layout.index.write_bytes(data)
    assert any("index" in f.what for f in _look(store))
    _mend(store)
    assert _look(store) == []
    assert check(store).ok


def test_missing_and_damaged_packs_are_told(store: Store, tip: CommitId) -> None:
    paths = sorted(store.layout.packs.rglob("*.pack"))
    paths[0].unlink()
    paths[1].write_bytes(b"")
    found = _look(store)
    assert any("missing" in f.what for f in found)
    assert any("too short" in f.what or "damaged" in f.what for f in found)
    assert any("1 packs whose files are missing were taken out of the index" in f.what for f in _mend(store))
    assert [f"{p.hex()}.pack" for p in store.index.packs()] == [paths[1].name]


def test_a_full_disk_and_a_writer_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    start = time.time()
    assert any("GiB free" in f.what for f in _look(store))
    with store.lock.hold("test"):
        [found] = [f for f in diagnose(store, config.load(None)) if "is writing" in f.what]
        assert found.level == "note"
        monkeypatch.setattr(time, "time", lambda: start + 2 * 3600)
        [found] = [f for f in diagnose(store, config.load(None)) if "is writing" in f.what]
        assert (found.level, "for 2 h" in found.what) == ("warning", True)


def test_a_clock_behind_the_newest_commit_is_told(store: Store, tip: CommitId, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = objects_of(store)
    made_s = objects.commit(tip).time_us / 1e6
    monkeypatch.setattr(time, "time", lambda: made_s + 1)
    assert list(clock(store, objects)) == []
    monkeypatch.setattr(time, "time", lambda: made_s - 3600)
    [found] = clock(store, objects)
    assert (found.level, "the clock is behind" in found.what) == ("warning", True)
