"""The store on full and read-only disks, and between processes that write and read at once."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shardfs.errors import LockedError, OutOfSpaceError, ReadOnlyError, RefChangedError, ShardfsError, StoreError
from shardfs.formats.ids import CommitId
from shardfs.history import paths
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.history.walk import ancestors
from shardfs.store import atomic, packs
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests.stores import CHUNK_SIZE, commit, noise

ROOT = Path(__file__).parents[2]
MAIN = "refs/heads/main"
FILES = {"a": noise(1, 3 * CHUNK_SIZE), "d/b": b"small"}
MORE = {"a": noise(2, 6 * CHUNK_SIZE), "d/c": b"other"}


def _everything(store: Store) -> dict[str, bytes]:
    """All files of all versions that the branch reaches, read and verified."""
    reader = Reader(store, budget_bytes=0)
    objects = Objects(reader)
    tip = store.refs.get(MAIN)
    return {
        f"{id_.hex()[:8]}:{paths.show(path)}": FileReader(entry, objects, reader).read_at(0, entry.size)
        for id_, version in ancestors(objects, [tip] if tip else [])
        for path, entry in paths.files(objects, version.tree)
    }


def _at_old_or_new(root: Path, old: CommitId) -> bool:
    """Whether the store opens and is whole; True when the ref has moved."""
    store = Store(root)
    tip = store.refs.get(MAIN)
    found = _everything(store)
    assert {found[f"{old.hex()[:8]}:{name}"] for name in FILES} == set(FILES.values())
    if tip != old:
        assert tip is not None
        assert {found[f"{tip.hex()[:8]}:{name}"] for name in MORE} == set(MORE.values())
    store.close()
    return tip != old


# A full disk


class Full:
    """Lets a number of durable steps pass and fails all later ones, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
        self.left = passes
        for owner, name in ((os, "fsync"), (atomic, "temp_name"), (atomic, "publish"), (packs.PackWriter, "_write")):
            monkeypatch.setattr(owner, name, self._limited(getattr(owner, name)))

    def _limited(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **options)

        return call


def test_a_full_disk_at_every_step_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "TARGET_SIZE", 3 * CHUNK_SIZE)
    store = Store.create(tmp_path / "s")
    old = commit(store, FILES)
    store.close()
    unsure = 0
    for step in range(1000):
        root = tmp_path / f"at-{step}"
        shutil.copytree(tmp_path / "s", root)
        store = Store(root)
        with monkeypatch.context() as patch:
            full = Full(patch, step)
            try:
                commit(store, MORE)
                failed = False
            except OutOfSpaceError:
                failed = True
        assert list(store.layout.tmp.iterdir()) == []
        store.close()
        moved = _at_old_or_new(root, old)
        assert moved or failed
        unsure += moved and failed
        again = Store(root)
        if failed:
            commit(again, MORE)
        again.close()
        assert _at_old_or_new(root, old)
        shutil.rmtree(root)
        if full.left >= 0:
            assert step > 20
            assert unsure <= 1  # moved, but the directory that holds the ref is not known to be durable
            return
    raise AssertionError


# Real file systems


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)  # fails when the store left a file open


def _remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


def _fill(folder: Path, leave: int = 0) -> Path:
    """Write a file until the disk is full but for `leave` bytes."""
    path = folder / "filler"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
    finally:
        os.ftruncate(fd, max(0, os.fstat(fd).st_size - leave))
        os.close(fd)
    return path


@pytest.mark.parametrize("closed", [True, False])
def test_a_read_only_store_is_read(disk: Path, closed: bool) -> None:
    """Also without an index: it cannot be made where it belongs."""
    store = Store.create(disk / "s")
    tip = commit(store, FILES)
    store.close()
    if not closed:
        (disk / "s/index.sqlite").unlink()
    _remount(disk, "ro")
    frozen = Store(disk / "s")
    assert set(_everything(frozen).values()) == set(FILES.values())
    for change in (
        lambda: commit(frozen, MORE),
        lambda: frozen.refs.move(MAIN, tip, None),
        lambda: frozen.rebuild_index(),
        lambda: frozen.drop_packs(frozen.index.packs()),
        lambda: Store.create(disk / "t"),
    ):
        with pytest.raises(ReadOnlyError):
            change()
    assert set(_everything(frozen).values()) == set(FILES.values())
    _remount(disk, "rw")
    commit(frozen, MORE)
    frozen.close()
    assert _at_old_or_new(disk / "s", tip)


def test_a_full_disk_is_read_and_loses_nothing(disk: Path) -> None:
    store = Store.create(disk / "s")
    old = commit(store, FILES)
    store.close()
    filler = _fill(disk)
    store = Store(disk / "s")
    assert set(_everything(store).values()) == set(FILES.values())
    for _ in range(2):
        with pytest.raises(OutOfSpaceError, match="free some space"):
            commit(store, MORE)
    assert _everything(store) == _everything(store)
    filler.unlink()
    commit(store, MORE)
    store.close()
    assert _at_old_or_new(disk / "s", old)


@pytest.mark.parametrize("leave", [4096, 40_000, 80_000, 120_000, 500_000])
def test_a_disk_that_fills_up_in_the_middle(disk: Path, leave: int) -> None:
    store = Store.create(disk / "s")
    old = commit(store, FILES)
    filler = _fill(disk, leave)
    failed = False
    try:
        commit(store, {**MORE, "more": noise(3, 20 * CHUNK_SIZE)})
    except OutOfSpaceError:
        failed = True
    assert failed is (leave < 500_000)
    assert store.refs.get(MAIN) == old or not failed
    assert len(_everything(store)) == (2 if failed else 5)
    filler.unlink()
    store.index.rebuild()
    assert len(_everything(store)) == (2 if failed else 5)
    assert list(store.layout.tmp.iterdir()) == []
    store.close()


# Processes


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that imports what these tests need; it says "ready" and waits for a line."""
    start = (
        "import sys\nfrom pathlib import Path\nfrom shardfs.errors import *\nfrom shardfs.store.store import Store\n"
    )
    start += "from tests.stores import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    assert process.returncode == 0


RACER = """
store = Store(Path(sys.argv[1]))
mine = bytes([int(sys.argv[2])]) * 31
for turn in range(int(sys.argv[3])):
    print("ready", flush=True)
    sys.stdin.readline()
    old = store.refs.get("refs/heads/main")
    try:
        store.refs.move("refs/heads/main", old, mine + bytes([turn]), message=sys.argv[2])
        print("moved", old.hex(), flush=True)
    except RefChangedError:
        print("lost", flush=True)
"""


def test_processes_that_move_the_same_ref(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s")
    store.refs.move(MAIN, None, CommitId(bytes(32)))
    turns = 30
    racers = [_start(RACER, tmp_path / "s", number, turns) for number in (1, 2, 3)]
    moved: list[str] = []
    for _ in range(turns):
        for racer in racers:
            assert _line(racer) == "ready"
        for racer in racers:
            _tell(racer)
        moved += [answer for racer in racers if (answer := _line(racer)) != "lost"]
    for racer in racers:
        _end(racer)
    lines = store.refs.log(MAIN)
    assert len(lines) == len(moved) + 1
    assert len(set(moved)) == len(moved)  # nobody moved it from where somebody else had
    for newer, older in pairwise(lines):
        assert newer.old == older.new
    assert store.refs.get(MAIN) == lines[0].new
    store.close()


HOLDER = """
with Store(Path(sys.argv[1])).batch("import") as batch:
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_who_holds_the_lock_is_named_and_readers_do_not_care(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", branch="main")
    tip = commit(store, FILES)
    holder = _start(HOLDER, tmp_path / "s")
    assert _line(holder) == "ready"
    busy = Store(tmp_path / "s", lock_wait_s=0.05)
    with pytest.raises(LockedError, match=rf"process {holder.pid} on \S+ \(import, since"):
        busy.refs.move(MAIN, tip, None)
    with pytest.raises(LockedError):
        commit(busy, MORE)
    started = time.monotonic()
    assert set(_everything(busy).values()) == set(FILES.values())
    busy.reconcile()
    assert time.monotonic() - started < 5
    holder.kill()  # the lock goes with its holder
    holder.communicate()
    commit(busy, MORE)
    busy.close()
    store.close()


WRITER = """
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    commit(store, {"a": noise(number, 5000), "b": b"%d" % number}, message="x")
store.rebuild_index()
store.close()
"""


def test_readers_during_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.transfer.reader.RECONCILE_INTERVAL_S", 0.0)
    store = Store.create(tmp_path / "s")
    commit(store, FILES)
    writer = _start(WRITER, tmp_path / "s")
    assert _line(writer) == "ready"
    _tell(writer)
    seen: set[CommitId | None] = set()
    slowest = 0.0
    while writer.poll() is None:
        started = time.monotonic()
        seen.add(store.refs.get(MAIN))
        _everything(store)
        slowest = max(slowest, time.monotonic() - started)
    assert writer.returncode == 0
    assert len(seen) > 2
    assert slowest < 5
    assert len(_everything(store)) == 2 + 25 * 2
    writer.communicate()
    store.close()


BREAKER = """
import os
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    path = store.layout.index
    if number % 3 == 0:
        path.unlink(missing_ok=True)
    elif number % 3 == 1:
        store.rebuild_index()
    else:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    store.index.packs()
store.close()
"""


def test_an_index_that_others_delete_and_rebuild_all_the_time(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s")
    for number in range(5):
        commit(store, {"a": noise(number, 5000)}, message=f"{number}")
    breakers = [_start(BREAKER, tmp_path / "s") for _ in range(2)]
    for breaker in breakers:
        assert _line(breaker) == "ready"
        _tell(breaker)
    number = 5
    while any(b.poll() is None for b in breakers) and number < 200:
        with suppress(StoreError):  # deleted in the middle of a transaction: that commit may be refused, never lost
            commit(store, {"a": noise(number, 5000)}, message=f"{number}")
            number += 1
        assert len(_everything(store)) == number
    for breaker in breakers:
        _end(breaker)
    assert len(_everything(store)) == number
    assert number > 5
    assert store.index.check() == []
    store.reconcile()
    assert set(store.index.packs()) == set(packs.list_packs(store.layout))
    store.close()


def test_a_lost_swap_between_processes_keeps_the_batch_and_the_ref(tmp_path: Path) -> None:
    """Two commits at once: the slower one is told, and nothing of the faster one is lost."""
    store = Store.create(tmp_path / "s")
    tip = commit(store, FILES)
    late = commit(store, MORE, branch=None, parents=[tip])
    other = Store(tmp_path / "s")
    winner = commit(other, {**FILES, "won": b"1"})
    with pytest.raises(RefChangedError) as caught:
        store.refs.move(MAIN, tip, late)
    assert caught.value.current == winner == store.refs.get(MAIN)
    assert len(_everything(store)) == 5
    other.close()
    store.close()


def test_errors_are_of_the_tree(tmp_path: Path) -> None:
    """A store that is deleted under its user."""
    store = Store.create(tmp_path / "s")
    commit(store, FILES)
    shutil.rmtree(tmp_path / "s")
    for use in (lambda: commit(store, MORE), lambda: store.find(bytes(32)), lambda: store.reconcile()):
        with pytest.raises(ShardfsError):
            use()
    assert not (tmp_path / "s").exists()
    store.close()
