"""Folders for web servers: whole at every moment, whatever happens to whoever writes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import LockedError, RepositoryNotFoundError, StoreError, UsageError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.pack import HEADER
from shardfs.maintenance.gc import gc
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock
from shardfs.store.store import Store
from shardfs.transfer.publish import publish
from shardfs.transfer.published import check_published
from tests.stores import MAIN, add_commit, commit, make_store
from tests.unit.maintenance.conftest import objects_of


@pytest.fixture
def source(tmp_path: Path) -> Iterator[tuple[Store, list[CommitId]]]:
    store, commits = make_store(tmp_path / "store", 2)
    yield store, commits
    store.close()


def packs_in(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "packs").glob("*/*.pack")}


def times_in(folder: Path) -> dict[Path, int]:
    """When what readers see was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_first_and_next(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    store, commits = source
    www = tmp_path / "a/b/www"
    first = publish(store, www)
    assert first.changed
    assert first.new == first.packs == first.linked == len(store.index.packs())
    assert check_published(www).problems == []
    before = times_in(www)
    again = publish(store, www)
    assert (again.changed, again.new, again.new_size) == (False, 0, 0)
    assert times_in(www) == before
    tip = add_commit(store, commits[-1], 9)
    more = publish(store, www)
    assert (more.changed, more.new) == (True, 1)
    assert ref_format.refs_from_bytes((www / "info/refs").read_bytes())[1] == {MAIN: tip}
    assert check_published(www).problems == []


def test_names_in_the_page_are_no_html(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    store, commits = source
    store.refs.move("refs/heads/<script>alert(1)</script>", None, commits[0], author="x", message="x")
    publish(store, tmp_path / "www")
    assert "<script>" not in (tmp_path / "www/index.html").read_text()


def test_copies_where_links_cannot_be(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    """A pack that only its owner may read is copied, so that the web server can."""
    store, _ = source
    for pack_id in store.index.packs():
        store.layout.pack(pack_id).chmod(0o600)
    report = publish(store, tmp_path / "www")
    assert report.linked == 0
    assert check_published(tmp_path / "www").problems == []
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "www").rglob("*.pack")}
    assert modes == {0o644}


def test_old_packs_go_when_nobody_can_want_them(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    store, commits = source
    www = tmp_path / "www"
    lost = commit(store, {"gone": b"gone"}, branch="gone")
    publish(store, www)
    store.refs.move("refs/heads/gone", lost, None, author="x", message="x")
    (store.layout.root / "logs/refs/heads/gone~").unlink()
    assert gc(store, objects_of(store), grace_s=0).dropped
    first = publish(store, www)
    assert first.changed
    assert first.removed == 0
    kept = packs_in(www)
    assert len(kept) > first.packs
    assert publish(store, www).removed == 0
    assert packs_in(www) == kept
    assert publish(store, www, keep_s=0).removed == len(kept) - first.packs
    assert packs_in(www) == {pack_id.hex() for pack_id in store.index.packs()}
    assert check_published(www).problems == []
    assert commits


def test_pack_that_comes_back_is_not_removed(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    store, _ = source
    www = tmp_path / "www"
    publish(store, www)
    (www / "info/unlisted").write_text(json.dumps({"version": 1, "packs": dict.fromkeys(packs_in(www), 0)}))
    publish(store, www)
    assert check_published(www).problems == []


@pytest.mark.parametrize("record", [b"", b"[]", b'{"packs": 3}', b'{"packs": {"a": "b"}}', b"\xff"])
def test_record_that_is_damaged(source: tuple[Store, list[CommitId]], tmp_path: Path, record: bytes) -> None:
    publish(source[0], tmp_path / "www")
    (tmp_path / "www/info/unlisted").write_bytes(record)
    assert publish(source[0], tmp_path / "www").removed == 0


def test_folders_that_hold_something_else(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    store, _ = source
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/letter").write_text("dear")
    (tmp_path / "file").write_text("")
    make_store(tmp_path / "other", 0)[0].close()
    for folder, expected in (
        (tmp_path / "docs", "not empty"),
        (tmp_path / "other", "is a repository itself"),
        (store.layout.root, "is a repository itself"),
    ):
        before = sorted(folder.rglob("*"))
        with pytest.raises(UsageError, match=expected):
            publish(store, folder)
        assert sorted(folder.rglob("*")) == before
    with pytest.raises(StoreError):
        publish(store, tmp_path / "file")


def test_store_that_lacks_something(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    store, _ = source
    www = tmp_path / "www"
    publish(store, www)
    before = (www / "info/refs").read_bytes()
    missing = commit(store, {"lazy": b"not here"})
    (pack_id,) = [p for p in store.index.packs() if any(e.id == missing for e in store.index.entries(p))]
    store.layout.pack(pack_id).unlink()
    store.forget_missing_packs()
    with pytest.raises(UsageError, match="fetch --full"):
        publish(store, www)
    assert (www / "info/refs").read_bytes() == before
    assert check_published(www).problems == []
    with pytest.raises(UsageError, match="fetch --full"):
        publish(store, tmp_path / "new/www")
    assert not (tmp_path / "new").exists()


def test_two_at_once(source: tuple[Store, list[CommitId]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.transfer.publish._LOCK_WAIT_S", 0.1)
    publish(source[0], tmp_path / "www")
    with WriterLock(tmp_path / "www/lock").hold("publish"), pytest.raises(LockedError):
        publish_elsewhere(source[0], tmp_path / "www")


def publish_elsewhere(store: Store, www: Path) -> None:
    """In another thread, for which the lock is another's."""
    caught: list[BaseException] = []

    def work() -> None:
        try:
            publish(store, www)
        except LockedError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for error in caught:
        raise error


DAMAGES = ["byte", "cut", "gone", "listing", "tip", "chunk"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_damage(source: tuple[Store, list[CommitId]], tmp_path: Path, damage: str) -> None:
    store, _ = source
    www = tmp_path / "www"
    publish(store, www)
    path = max((www / "packs").glob("*/*.pack"), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    path.unlink()  # a link to the original
    listing = www / "info/packs"
    if damage == "byte":
        data[len(HEADER) + 3] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "listing":
        listed = [p for p in ref_format.packs_from_bytes(listing.read_bytes()) if p.id.hex() != path.stem]
        listing.write_bytes(ref_format.packs_to_bytes(listed))
    elif damage == "tip":
        path.write_bytes(data)
        (www / "info/refs").write_bytes(ref_format.refs_to_bytes(MAIN, {MAIN: CommitId(b"\1" * 32)}))
    elif damage == "chunk":
        path.write_bytes(data)
        smaller, _ = make_store(tmp_path / "smaller", 1)
        other = next(iter(smaller.index.packs()))
        listed = ref_format.packs_from_bytes(listing.read_bytes())
        target = Layout(www).pack(other)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(smaller.layout.pack(other).read_bytes()[:-1] + b"x")
        listing.write_bytes(ref_format.packs_to_bytes([*listed, ref_format.PackSize(other, target.stat().st_size)]))
        smaller.close()
    assert check_published(www).problems


def test_nothing_to_check(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RepositoryNotFoundError):
            check_published(folder)


_KILLED = """
import os, sys, threading
from pathlib import Path
from shardfs.store.store import Store
from shardfs.transfer.publish import publish
store, www = Store(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
while True:
    publish(store, www, keep_s=0)
"""


def test_killed_at_any_moment(source: tuple[Store, list[CommitId]], tmp_path: Path) -> None:
    """Whatever was published last is whole, and the next publication goes on from there."""
    store, commits = source
    www, tip = tmp_path / "www", commits[-1]
    publish(store, www)
    for number in range(6):
        command = [sys.executable, "-c", _KILLED, str(store.layout.root), str(www)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for step in range(3):
                tip = add_commit(store, tip, 100 * number + step)
            if number % 2:
                lost = commit(store, {"x": os.urandom(100)}, branch="x", parents=[])
                store.refs.move("refs/heads/x", lost, None, author="x", message="x")
            time.sleep(0.003 * number)
            process.send_signal(signal.SIGKILL)
        assert check_published(www).problems == []
    publish(store, www)
    assert check_published(www).problems == []
    assert ref_format.refs_from_bytes((www / "info/refs").read_bytes())[1] == {MAIN: tip}
