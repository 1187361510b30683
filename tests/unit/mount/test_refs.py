"""When refs are read again, and what listing commits costs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from shardfs.errors import RefCorruptedError, RemoteUnavailableError
from shardfs.formats.ids import CommitId
from shardfs.mount import refs as refs_module
from shardfs.mount.refs import Refs
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock that refs look at: one number to change."""
    now = [1000.0]
    monkeypatch.setattr("shardfs.mount.refs.time.monotonic", lambda: now[0])
    return now


def test_a_change_is_seen_after_the_interval_and_not_before(source: MemorySource, clock: list[float]) -> None:
    refs = Refs(source, "main")
    before = refs.state()
    source.put({}, "third")
    assert refs.state() is before
    clock[0] += refs_module.CHECK_EVERY_S * 1.01
    after = refs.state()
    assert after.tip == source.refs["main"]
    assert after.number == before.number + 1


def test_nothing_is_read_while_the_listing_stays(
    source: MemorySource, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = Refs(source, "main")
    before = refs.state()
    reads: list[int] = []

    def branches() -> dict[str, CommitId]:
        reads.append(1)
        return dict(source.refs)

    monkeypatch.setattr(source, "branches", branches)
    for _ in range(10):
        clock[0] += refs_module.CHECK_EVERY_S * 1.01
        assert refs.state() is before
    assert reads == []
    source.refs["exp"] = source.refs["main"]  # a writer that was killed before it wrote the listing
    clock[0] += refs_module.REREAD_EVERY_S * 1.01
    assert b"exp" in refs.state().branches


def test_the_same_refs_are_the_same_state(source: MemorySource, clock: list[float]) -> None:
    refs = Refs(source, "main")
    before = refs.state()
    source.touch()
    clock[0] += 1
    assert refs.state() is before


def test_a_damaged_ref_leaves_the_last_state(
    source: MemorySource, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = Refs(source, "main")
    before = refs.state()

    def damaged() -> dict[str, CommitId]:
        raise RefCorruptedError("refs/heads/main is damaged")

    monkeypatch.setattr(source, "branches", damaged)
    source.touch()
    clock[0] += 1
    assert refs.state() is before
    with pytest.raises(RefCorruptedError):
        Refs(source, "main").state()


def test_a_lost_branch_leaves_the_last_state(
    source: MemorySource, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = Refs(source, "main")
    before = refs.state()

    def lost(branch: str) -> CommitId:
        raise RefCorruptedError(f"refs/heads/{branch} is missing")

    source.refs.clear()
    monkeypatch.setattr(source, "tip", lost)
    source.touch()
    clock[0] += 1
    assert refs.state() is before


def test_all_reachable_commits_are_listed_and_no_others(source: MemorySource) -> None:
    refs = Refs(source, "main")
    everything = set(source.objects.commits)
    assert refs.commits() == everything
    lost = source.put({(b"x",): b"x"}, "dropped", branch="exp")
    kept = source.put({(b"y",): b"y"}, "third")
    refs.expire()
    assert refs.commits() == {*everything, lost, kept}
    source.remote_refs["origin/exp"] = source.refs.pop("exp")
    source.touch()
    refs.expire()
    assert refs.commits() == {*everything, lost, kept}
    del source.remote_refs["origin/exp"]
    source.touch()
    refs.expire()
    assert refs.commits() == {*everything, kept}


def test_mounting_walks_no_history(tmp_path: Path) -> None:
    source = MemorySource(tmp_path / "store")
    tree = source.store.put({})
    for number in range(100):
        source.add(tree, f"commit {number}")
    source.objects.commits_loaded = 0
    vfs = Vfs(source)
    vfs.resolve(b"latest")
    assert source.objects.commits_loaded == 0
    assert len(vfs.readdir(vfs.resolve(b"versions"))) == 100
    source.close()


def test_a_new_commit_costs_one_step(tmp_path: Path) -> None:
    source = MemorySource(tmp_path / "store")
    tree = source.store.put({})
    for number in range(300):
        source.add(tree, f"commit {number}")
    refs = Refs(source, "main")
    assert len(refs.commits()) == 300
    source.objects.commits_loaded = 0
    source.add(tree, "one more")
    refs.expire()
    assert len(refs.commits()) == 301
    assert source.objects.commits_loaded <= 2


class SlowSource(MemorySource):
    """A view of a remote that answers when the test lets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.url = "http://example.org/demo"
        self.asked, self.answer = threading.Event(), threading.Event()
        self.fails = False

    def refresh(self) -> None:
        self.asked.set()
        assert self.answer.wait(10)
        self.answer.clear()
        if self.fails:
            raise RemoteUnavailableError("cannot connect")
        self.put({(b"remote",): b"new"}, "from the remote")


def test_a_silent_remote_delays_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs_module, "REMOTE_WAIT_S", 0.05)
    monkeypatch.setattr(refs_module, "REMOTE_EVERY_S", 0.0)
    source = SlowSource(tmp_path / "store")
    first = source.put({}, "initial")
    refs = Refs(source, "main")
    begin = time.monotonic()
    assert refs.state().tip == first
    refs.expire()
    assert refs.state().tip == first
    assert time.monotonic() - begin < 1.0
    assert source.asked.is_set()
    source.answer.set()
    deadline = time.monotonic() + 5
    while refs.state().tip == first and time.monotonic() < deadline:
        refs.expire()
    assert refs.state().tip != first
    source.answer.set()
    refs.close()


def test_a_failing_remote_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs_module, "REMOTE_EVERY_S", 0.0)
    source = SlowSource(tmp_path / "store")
    source.fails = True
    first = source.put({}, "initial")
    source.answer.set()
    refs = Refs(source, "main")
    assert refs.state().tip == first
    refs.close()
