"""What the tests of the mount share: a repository in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardfs.errors import FsError, NothingToCommitError, ObjectNotFoundError, ReadOnlyError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind, ManifestId, TreeId, object_id
from shardfs.formats.manifest import Manifest
from shardfs.formats.ref import BRANCHES, Head
from shardfs.formats.tree import FileEntry, Tree
from shardfs.history.versions import Version
from shardfs.mount.nodes import Node
from shardfs.mount.source import Content
from shardfs.mount.vfs import Vfs
from shardfs.staging.area import Area
from tests.areas import Flat, MemoryStore


class MemoryObjects:
    """Objects by id; counts what was loaded."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.commits: dict[CommitId, Commit] = {}
        self.commits_loaded = 0

    def commit(self, id_: CommitId, /) -> Commit:
        self.commits_loaded += 1
        try:
            return self.commits[id_]
        except KeyError:
            raise ObjectNotFoundError(id_.hex()) from None

    def tree(self, id_: TreeId, /) -> Tree:
        return self._store.tree(id_)

    def manifest(self, id_: ManifestId, /) -> Manifest:
        raise ObjectNotFoundError(id_.hex())


@dataclass(frozen=True)
class Facts:
    chunks: int = 1
    stored: int = 50
    cached: int = 100
    codecs: Sequence[str] = ("zstd", "raw")
    depth: int = 3


class MemorySource:
    """A repository in memory, with real staging areas below `store_path`."""

    def __init__(self, store_path: Path, *, read_only: bool = False) -> None:
        self.store_path = store_path
        self.read_only = read_only
        self.url: str | None = "http://example.org/demo" if read_only else None
        self.store = MemoryStore()
        self.objects = MemoryObjects(self.store)
        self.refs: dict[str, CommitId] = {}
        self.tag_refs: dict[str, CommitId] = {}
        self.remote_refs: dict[str, CommitId] = {}
        self.head_value = Head(BRANCHES + "main")
        self.refreshed = 0
        self.plain: dict[bytes, Path] = {}  # plain files by id of their content
        self.served: list[tuple[FileEntry, int]] = []
        self._areas: dict[str, Area] = {}
        self._clock = itertools.count(1)
        (store_path / "info").mkdir(parents=True, exist_ok=True)

    # What a mount uses

    def head(self) -> Head:
        return self.head_value

    def branches(self) -> dict[str, CommitId]:
        return dict(self.refs)

    def tip(self, branch: str, /) -> CommitId | None:
        return self.refs.get(branch)

    def tags(self) -> dict[str, CommitId]:
        return dict(self.tag_refs)

    def remote_branches(self) -> dict[str, CommitId]:
        return dict(self.remote_refs)

    def versions(self, branch: str | None = None, /) -> list[Version]:
        line: list[CommitId] = []
        id_ = self.refs.get(branch or "main")
        while id_ is not None:
            line.append(id_)
            parents = self.objects.commits[id_].parents
            id_ = parents[0] if parents else None
        line.reverse()
        return [Version(n, f"{n:04d}-{self.objects.commits[i].message}", i) for n, i in enumerate(line, 1)]

    def commits_with_prefix(self, digits: str, /) -> list[CommitId]:
        return [i for i in self.objects.commits if i.hex().startswith(digits)]

    def open_entry(self, entry: FileEntry, _path: bytes = b"", /) -> Content:
        return self.store.open_content(entry)

    def plain_file(self, entry: FileEntry, /) -> int | None:
        path = self.plain_path(entry)
        return None if path is None else os.open(path, os.O_RDONLY)

    def plain_path(self, entry: FileEntry, /) -> Path | None:
        return self.plain.get(entry.manifest or entry.chunk or b"")

    def note_read(self, entry: FileEntry, size: int, /) -> None:
        self.served.append((entry, size))

    def file_facts(self, _entry: FileEntry, /) -> Facts:
        return Facts()

    def area(self, branch: str | None = None, /) -> Area:
        if self.read_only:
            raise ReadOnlyError("read-only")
        name = branch or "main"
        tip = self.refs.get(name)
        base = None if tip is None else self.objects.commits[tip].tree
        if name not in self._areas:
            self._areas[name] = Area.open(
                self.store_path / "staging" / name, self.store, self.store.open_content, base, 0
            )
        if self._areas[name].base != base:
            self._areas[name].rebase(base, 0)
        return self._areas[name]

    def commit(self, message: str, *, branch: str | None = None) -> CommitId:
        area = self.area(branch)
        with area.snapshot() as snapshot:
            tree = self.store.build(snapshot)
            if tree == area.base:
                raise NothingToCommitError("nothing to commit")
            id_ = self.add(tree, message, branch or "main")
            area.mark_committed(snapshot, tree)
        return id_

    def refresh(self) -> None:
        self.refreshed += 1

    def stats_snapshot(self) -> Mapping[str, Any]:
        return {"answer": 42}

    # What tests use

    def put(self, flat: Flat, message: str = "message", branch: str = "main") -> CommitId:
        """A commit of a whole tree on a branch."""
        return self.add(self.store.put(flat), message, branch)

    def add(self, tree: TreeId, message: str, branch: str = "main") -> CommitId:
        parent = self.refs.get(branch)
        parents = () if parent is None else (parent,)
        commit = Commit(tree, parents, "A Tester", next(self._clock) * 10**12, message)
        id_ = CommitId(object_id(Kind.COMMIT, commit.to_bytes()))
        self.objects.commits[id_] = commit
        self.refs[branch] = id_
        self.touch()
        return id_

    def touch(self) -> None:
        """What every move of a ref does: replace the listing."""
        fresh = self.store_path / "info" / "refs.new"
        fresh.write_text(repr((self.refs, self.tag_refs)))
        fresh.rename(self.store_path / "info" / "refs")

    def end_areas(self) -> None:
        """What the end of a process does to staging."""
        self.close()
        self._areas.clear()

    def close(self) -> None:
        for area in self._areas.values():
            area.close()


def walk(vfs: Vfs, node: Node, prefix: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    """Every path and node below a directory, depth first, directories before their content."""
    for name, child, _ in vfs.readdir(node):
        path = prefix + b"/" + name if prefix else name
        yield path, child
        if child.is_dir:
            yield from walk(vfs, child, path)


def names(vfs: Vfs, path: bytes) -> list[bytes]:
    return [entry.name for entry in vfs.readdir(vfs.resolve(path))]


def link(vfs: Vfs, path: bytes) -> bytes:
    return vfs.readlink(vfs.resolve(path))


def content(vfs: Vfs, path: bytes) -> bytes:
    handle = vfs.open(vfs.resolve(path), os.O_RDONLY)
    try:
        return vfs.read(handle, 0, 1 << 20)
    finally:
        vfs.release(handle)


def code(function: Callable[[], object]) -> int | None:
    with pytest.raises(FsError) as caught:
        function()
    return caught.value.errno


def commit_path(id_: CommitId) -> bytes:
    return b"commits/" + id_.hex().encode()


def write(vfs: Vfs, name: bytes, data: bytes) -> None:
    """Make a file in staging, as a program does."""
    handle = vfs.create(vfs.resolve(b"staging"), name, 0o644, os.O_WRONLY)
    vfs.write(handle, 0, data)
    vfs.flush(handle)
    vfs.release(handle)
