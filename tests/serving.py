"""Stores with a little history, and a real server process to serve them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, TreeId
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.tree import DirEntry, FileEntry, Tree
from shardfs.store.store import Store

MAIN = "refs/heads/main"
_PROGRAM = """
import sys
from pathlib import Path
from shardfs.server.app import run
run(Path(sys.argv[1]), port=0, read_only="read-only" in sys.argv, create="no-create" not in sys.argv)
"""


@dataclass
class Server:
    """A running server; `killed`: by the test, so that a clean stop is not expected."""

    url: str
    process: subprocess.Popen[str]
    killed: bool = False

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self.process.kill()


@contextmanager
def serving(root: Path, *flags: str) -> Iterator[Server]:
    """A server process of its own on a free port of the loopback interface; must stop cleanly on SIGTERM."""
    command = [sys.executable, "-c", _PROGRAM, str(root), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("Serving "), line + process.stderr.read()
            server = Server(line.split(" at ")[1].strip().rstrip("/"), process)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                _, errors = process.communicate(timeout=20)
            finally:
                process.kill()
        assert server.killed or process.returncode == 0, errors
        assert "Traceback" not in errors, errors


def add_commit(store: Store, parent: CommitId | None, number: int, *, move: str | None = MAIN) -> CommitId:
    """A commit with a small file, a file of three chunks and a directory; all in one pack."""
    with store.batch() as batch:
        chunks = [os.urandom(1000 + number), b"same in every commit" * 50, bytes([number % 256]) * 70_000]
        refs = [ChunkRef(ChunkId(batch.put(Kind.CHUNK, c)), len(c)) for c in chunks]
        manifest = Manifest(sum(map(len, chunks)), tuple(refs))
        manifest_id = ManifestId(batch.put(Kind.MANIFEST, manifest.to_bytes()))
        small = f"version {number}".encode()
        inner = Tree.of([FileEntry(b"big", manifest.size, manifest=manifest_id)])
        top = Tree.of(
            [
                DirEntry(b"weights", TreeId(batch.put(Kind.TREE, inner.to_bytes()))),
                FileEntry(b"small", len(small), chunk=ChunkId(batch.put(Kind.CHUNK, small))),
            ]
        )
        tree = TreeId(batch.put(Kind.TREE, top.to_bytes()))
        parents = () if parent is None else (parent,)
        commit = Commit(tree, parents, "A <a@b>", 1_000_000 * number, f"commit {number}")
        batch.put(Kind.COMMIT, commit.to_bytes())
    if move is not None:
        store.refs.move(move, store.refs.get(move), commit.id, author="A", message="test")
    return commit.id


def make_store(root: Path, commits: int = 3) -> tuple[Store, list[CommitId]]:
    """A store with so many commits on main, each in a pack of its own."""
    store = Store.create(root)
    made: list[CommitId] = []
    for number in range(1, commits + 1):
        made.append(add_commit(store, made[-1] if made else None, number))
    return store, made
