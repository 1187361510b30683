"""kill -9 of the process that writes into a staging area, at random moments, round after round on one area.

The child announces each operation when it has returned. After the kill the area must show the state after the last
announced operation, or after the one that was running: nothing that was closed, fsynced, renamed or removed is lost
or comes back, and no content is torn. Run as a program, this file is the child.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from shardfs.formats.ids import ChunkId, TreeId, chunk_id
from shardfs.formats.tree import FileEntry, Tree
from shardfs.staging import opened
from shardfs.staging.area import Area
from shardfs.staging.nodes import ROOT
from tests.areas import Flat, MemoryStore, files, shown

ROUNDS = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 25
OPERATIONS = 400
NAMES = [b"a", b"b", b"c", b"d", b"e"]
BIG_SIZE = 64 << 10
BIG, LOG = (b"big",), (b"log",)

Operation = tuple[str, bytes, bytes, bytes]


class DiskStore(MemoryStore):
    """Survives its process: trees and contents are files, written before they are named."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def tree(self, tree_id: TreeId, /) -> Tree:
        if tree_id not in self.trees:
            self.trees[tree_id] = Tree.from_bytes((self._directory / tree_id.hex()).read_bytes())
        return self.trees[tree_id]

    def put_tree(self, tree: Tree) -> TreeId:
        self._write(tree.id, tree.to_bytes())
        return super().put_tree(tree)

    def file(self, name: bytes, data: bytes, *, executable: bool = False) -> FileEntry:
        self._write(chunk_id(data), data)
        return super().file(name, data, executable=executable)

    def open_content(self, entry: FileEntry, /) -> object:  # type: ignore[override]
        if entry.chunk is not None and entry.chunk not in self.contents:
            self.contents[ChunkId(entry.chunk)] = (self._directory / entry.chunk.hex()).read_bytes()
        return super().open_content(entry)

    def _write(self, key: bytes, data: bytes) -> None:
        path = self._directory / key.hex()
        path.with_suffix(".tmp").write_bytes(data)
        path.with_suffix(".tmp").rename(path)


def operations(seed: int) -> list[Operation]:
    """The same list in the child and in the parent."""
    chance = random.Random(seed)
    kinds = ["write", "rewrite", "append", "rename", "unlink", "log", "log fsync", "commit"]
    return [
        (
            chance.choices(kinds, weights=[6, 4, 4, 3, 2, 4, 3, 1])[0],
            chance.choice(NAMES),
            chance.choice(NAMES),
            chance.randbytes(chance.choice([1, 10, 5000])),
        )
        for _ in range(OPERATIONS)
    ]


def model(state: Flat, log: bytes, operation: Operation) -> tuple[Flat, bytes]:
    """The stable state and the whole log after an operation."""
    kind, name, other, data = operation
    state = dict(state)
    old = state.get((name,))
    assert old is None or isinstance(old, bytes)
    if kind == "write":
        state[name,] = data
    elif kind == "rewrite" and old is not None:
        state[name,] = data + old[len(data) :]
    elif kind == "append" and old is not None:
        state[name,] = old + data
    elif kind == "rename" and old is not None:
        del state[name,]
        state[other,] = old
    elif kind == "unlink":
        state.pop((name,), None)
    elif kind == "log":
        log += data
    elif kind == "log fsync":
        state[LOG] = log
    return state, log


class Child:
    """The process that is killed: one thread of announced operations, one that rewrites a file all the time."""

    def __init__(self, directory: Path) -> None:
        self.store = DiskStore(directory / "store")
        self.area = Area.open(directory / "area", self.store, self.store.open_content)  # type: ignore[arg-type]
        self.area.start_session("the child")
        self.log = self.area.create(ROOT, b"log", 0o644, os.O_RDWR)
        self.log.fsync()

    def run(self, seed: int) -> None:
        if seed % 2:
            opened.LAYERED_FROM = 1
        threading.Thread(target=self.rewrite_big, daemon=True).start()
        self.announce(b"log is open")
        for operation in operations(seed):
            self.apply(operation)
            self.announce(operation[0].encode())

    def announce(self, what: bytes) -> None:
        os.write(1, what + b"\n")

    def rewrite_big(self) -> None:
        for value in range(1 << 30):
            file = self.area.create(ROOT, b"big", 0o644, os.O_WRONLY)
            file.truncate(0)
            for offset in range(0, BIG_SIZE, 4096):
                file.write(offset, bytes([value % 256]) * 4096)
            file.release()

    def apply(self, operation: Operation) -> None:
        kind, name, other, data = operation
        present = name in {node.name for node in self.area.list(ROOT)}
        if kind == "write":
            file = self.area.create(ROOT, name, 0o644, os.O_WRONLY)
            file.truncate(0)
            file.write(0, data[:4])
            file.write(4, data[4:])
            file.release()
        elif kind in ("rewrite", "append") and present:
            node = self.area.lookup(ROOT, name)
            file = self.area.open_file(node.ino, os.O_RDWR)
            file.write(node.size if kind == "append" else 0, data)
            file.release()
        elif kind == "rename" and present:
            self.area.rename(ROOT, name, ROOT, other)
        elif kind == "unlink" and present:
            self.area.unlink(ROOT, name)
        elif kind == "log":
            self.log.write(self.log.stat().size, data)
        elif kind == "log fsync":
            self.log.fsync()
        elif kind == "commit":
            with self.area.snapshot() as snapshot:
                self.area.mark_committed(snapshot, self.store.build(snapshot))


def allowed(before: Flat, after: Flat, operation: Operation | None) -> Iterator[Flat]:
    """States that a kill during an operation may leave."""
    yield before
    yield after
    if operation is not None and operation[0] == "write" and (operation[1],) not in before:
        # A new file keeps what was written before the kill, as in any file system.
        for length in (0, 4):
            yield before | {(operation[1],): operation[3][:length]}


def killed_child(directory: Path, seed: int, chance: random.Random) -> int:
    """Run the child, kill it at some moment; how many operations it announced (the opening is the first)."""
    command = [sys.executable, "-m", "tests.faults.test_staging_kill", str(directory), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        announced = 0
        wanted = chance.randrange(1, 120)
        while announced < wanted and child.stdout.readline():
            announced += 1
        time.sleep(chance.random() * 0.004)
        os.kill(child.pid, signal.SIGKILL)
        return announced + len(child.stdout.read().splitlines())


def test_nothing_is_lost_or_torn_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(2024)
    store = DiskStore(tmp_path / "store")
    state: Flat = {}
    log = b""
    for seed in range(ROUNDS):
        announced = killed_child(tmp_path, seed, chance)
        assert announced > 0, "the child died on its own"
        done = operations(seed)[: announced - 1]
        running = operations(seed)[announced - 1] if announced <= OPERATIONS else None
        state.setdefault(LOG, b"")
        for operation in done:
            state, log = model(state, log, operation)
        after = model(state, log, running)[0] if running is not None else state

        with Area.open(tmp_path / "area", store, store.open_content) as area:  # type: ignore[arg-type]
            found = shown(area)
            big = found.pop(BIG, b"")
            assert isinstance(big, bytes)
            assert len(set(big)) <= 1, f"round {seed}: torn between two contents"
            assert BIG not in area.recovery.dropped or len(big) == BIG_SIZE
            assert found in list(allowed(state, after, running)), f"round {seed}, during {running and running[0]}"
            assert store.commit(area) == shown(area)
            assert files(area) == []
            state, log = found, bytes(found[LOG])  # type: ignore[arg-type]


if __name__ == "__main__":
    Child(Path(sys.argv[1])).run(int(sys.argv[2]))
