"""Run an operation again and again, each time killed one durable step later; run as a program, see `main`.

A process of its own without threads forks a child for each run: forking pytest would copy its threads' locks, and
starting Python anew for each of some hundred runs would take minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shardfs.formats.ids import CommitId
from shardfs.history import paths
from shardfs.history.objects import Objects
from shardfs.history.walk import ancestors
from shardfs.maintenance.gc import gc
from shardfs.maintenance.verify import verify
from shardfs.remotes.directory import DirectoryRemote
from shardfs.store import atomic
from shardfs.store import packs as pack_files
from shardfs.store.index import Index
from shardfs.store.store import Store
from shardfs.transfer.fetch import fetch
from shardfs.transfer.filters import Filter
from shardfs.transfer.push import RefUpdate, push
from shardfs.transfer.reader import Reader
from tests import stores
from tests.stores import CHUNK_SIZE, commit, noise

MAIN = "refs/heads/main"
_STEPS: list[tuple[Any, str]] = [
    (os, "fsync"),
    (os, "replace"),
    (os, "rename"),
    (os, "unlink"),
    (os, "link"),
    (os, "rmdir"),
    (atomic, "temp_name"),
    (Index, "add_packs"),
    (Index, "remove_packs"),
]


def kill_at(step: int) -> None:
    """Let this process die right before its `step`-th durable step."""
    left = [step]

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*args, **options)

        return call

    for owner, name in _STEPS:
        setattr(owner, name, deadly(getattr(owner, name)))


def contents(store: Store) -> dict[str, str]:
    """Every file of every version that a branch reaches, with the id of its content."""
    objects = Objects(Reader(store, budget_bytes=0))
    found: dict[str, str] = {}
    for id_, version in ancestors(objects, store.refs.list("refs/heads/").values()):
        for path, entry in paths.files(objects, version.tree):
            found[f"{id_.hex()[:12]}:{paths.show(path)}"] = f"{entry.size} {entry.chunk!r} {entry.manifest!r}"
    return found


def sound(store: Store) -> list[str]:
    """What verification finds."""
    reader = Reader(store, budget_bytes=0)
    report = verify(store, Objects(reader), reader)
    return [f"{p.kind} {p.object[:12]} {p.file}: {p.problem}" for p in report.problems]


class Operation:
    """Something to be killed: prepared once, run on a copy each time."""

    def prepare(self, root: Path) -> None:
        """Make what the operation needs below `root`."""
        raise NotImplementedError

    def run(self, root: Path) -> None:
        """The operation; must be able to run again after a kill."""
        raise NotImplementedError

    def check(self, root: Path, before: dict[str, str]) -> list[str]:
        """What is wrong after a kill."""
        problems: list[str] = []
        for store in self.stores(root):
            problems += sound(store)
            now = contents(store)
            if store.layout.root.name == "local":
                problems += [f"{key} is lost" for key, value in before.items() if now.get(key) != value]
            store.close()
        return problems

    def stores(self, root: Path) -> Iterator[Store]:
        """All stores below `root`."""
        for folder in sorted(root.iterdir()):
            yield Store(folder, lock_wait_s=5)


class Commit(Operation):
    """A batch of several packs, then a ref."""

    def prepare(self, root: Path) -> None:
        store = Store.create(root / "local")
        commit(store, {"a": noise(1, 8 * CHUNK_SIZE)}, message="first")
        store.close()

    def run(self, root: Path) -> None:
        pack_files.TARGET_SIZE = 3 * CHUNK_SIZE  # type: ignore[misc]
        store = Store(root / "local")
        commit(store, {"a": noise(2, 12 * CHUNK_SIZE), "b/c": b"small"}, message="second")
        store.close()


class Gc(Operation):
    """Packs to drop, to rewrite, to leave; one that is not indexed; one twice."""

    def prepare(self, root: Path) -> None:
        store = Store.create(root / "local")
        keep = noise(1, 2 * CHUNK_SIZE)
        with store.batch() as batch:
            stores.put_file(batch, b"waste", noise(2, 10 * CHUNK_SIZE))
            stores.put_tree(batch, {"a": keep}, {})
        for seed in (3, 4):
            with store.batch() as batch:
                stores.put_file(batch, b"waste", noise(seed, 5 * CHUNK_SIZE))
        commit(store, {"a": keep}, message="first")
        commit(store, {"a": keep, "b": noise(5, 5 * CHUNK_SIZE)}, message="second")
        orphan = next(iter(store.index.packs()))
        stores.sql(store, f"DELETE FROM copies WHERE pack = (SELECT pack FROM packs WHERE id = x'{orphan.hex()}')")
        store.close()

    def run(self, root: Path) -> None:
        store = Store(root / "local")
        gc(store, Objects(Reader(store)), grace_s=0)
        store.close()


class Push(Operation):
    """Whole packs and loose payloads to a second store, then its ref."""

    def prepare(self, root: Path) -> None:
        store = Store.create(root / "local")
        server = Store.create(root / "server")
        first = commit(store, {"a": noise(1, 4 * CHUNK_SIZE)}, message="first")
        self._push(root, store, first)
        with store.batch() as batch:
            stores.put_file(batch, b"private", noise(7, CHUNK_SIZE))
            stores.put_tree(batch, {"a": noise(2, 5 * CHUNK_SIZE)}, {})
        commit(store, {"a": noise(2, 5 * CHUNK_SIZE)}, message="second")
        commit(store, {"a": noise(3, 5 * CHUNK_SIZE)}, message="third")
        store.close()
        server.close()

    def run(self, root: Path) -> None:
        store = Store(root / "local")
        tip = store.refs.get(MAIN)
        assert tip is not None
        self._push(root, store, tip)
        store.close()

    def _push(self, root: Path, store: Store, tip: CommitId) -> None:
        remote = DirectoryRemote(root / "server")
        reader = Reader(store)
        push(store, reader, Objects(reader), remote, [RefUpdate(MAIN, tip)])
        remote.close()


class Fetch(Operation):
    """All packs of a second store."""

    def prepare(self, root: Path) -> None:
        server = Store.create(root / "server")
        commit(server, {"a": noise(1, 4 * CHUNK_SIZE)}, message="first")
        commit(server, {"a": noise(2, 4 * CHUNK_SIZE)}, message="second")
        server.close()
        Store.create(root / "local").close()

    def run(self, root: Path) -> None:
        store = Store(root / "local")
        remote = DirectoryRemote(root / "server")
        fetch(store, remote)
        fetch(store, remote, wanted=Filter(everything=True))
        remote.close()
        store.close()


OPERATIONS = {"commit": Commit, "gc": Gc, "push": Push, "fetch": Fetch}


def rounds(operation: Operation, folder: Path) -> Iterator[dict[str, Any]]:
    """Kill the operation at step 0, 1, 2 ... until it ends by itself; after each kill check, finish, check."""
    template = folder / "template"
    template.mkdir()
    operation.prepare(template)
    before = contents(next(operation.stores(template)))
    for step in range(10_000):
        root = folder / f"at-{step}"
        shutil.copytree(template, root)
        killed = _in_child(operation, root, step)
        problems = operation.check(root, before)
        operation.run(root)
        problems += [f"after the second run: {p}" for p in operation.check(root, before)]
        yield {"step": step, "killed": killed == signal.SIGKILL, "status": killed, "problems": problems, **_sizes(root)}
        shutil.rmtree(root)
        if not killed:
            return


def _sizes(root: Path) -> dict[str, Any]:
    """What is there in the end: the same after each kill, or something is left behind or lost."""
    sizes = {p.name: sorted(f.name for f in (p / "packs").rglob("*.pack")) for p in sorted(root.iterdir())}
    tips = {p.name: (p / MAIN).read_text() if (p / MAIN).exists() else "" for p in sorted(root.iterdir())}
    return {"packs": sizes, "tips": tips}


def _in_child(operation: Operation, root: Path, step: int) -> int:
    """The signal that ended a child which runs the operation; 0 when it finished, 1 when it raised."""
    child = os.fork()
    if child == 0:
        try:
            kill_at(step)
            operation.run(root)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main() -> None:
    """Arguments: an operation and an empty folder. One JSON line for each round."""
    for line in rounds(OPERATIONS[sys.argv[1]](), Path(sys.argv[2])):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
