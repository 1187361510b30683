"""Everything that names reach: is it there, is it sound, and if not, which file of which version needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardfs.errors import FormatError, IntegrityError, NotFoundError, RemoteError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, TreeId
from shardfs.formats.manifest import ChunkRef
from shardfs.formats.tree import DirEntry, FileEntry
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.history.paths import Path, show
from shardfs.maintenance.packcheck import PackChecks
from shardfs.maintenance.problems import Problem
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader

_BAD = (NotFoundError, IntegrityError, FormatError)


@dataclass
class Contents:
    """What was reached.

    Attributes:
        commits, trees, chunks: ids, each checked once.
        files: file entries met in those trees.
        remote_chunks: chunks that are only at a remote.
        reported: ids that `problems` name.
        problems: what is missing or damaged.
    """

    commits: set[CommitId] = field(default_factory=set)
    trees: set[TreeId] = field(default_factory=set)
    chunks: set[bytes] = field(default_factory=set)
    files: int = 0
    remote_chunks: int = 0
    reported: set[bytes] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def check_contents(
    store: Store, objects: Objects, checks: PackChecks, tips: Mapping[CommitId, str], reader: Reader | None
) -> Contents:
    """Follow commits to the last chunk.

    Args:
        store: where the packs are.
        objects: reads history.
        checks: what was found in the packs.
        tips: commits to start from, with the names that people know them by.
        reader: gets what is only at a remote; None to count that as there.
    """
    walk = _Walk(store, objects, checks, reader)
    walk.commits(tips)
    return walk.result


class _Walk:
    def __init__(self, store: Store, objects: Objects, checks: PackChecks, reader: Reader | None) -> None:
        self._store = store
        self._objects = objects
        self._checks = checks
        self._reader = reader
        self._commit = ""
        self._chunk_problems: dict[bytes, str | None] = {}
        self.result = Contents()

    def commits(self, tips: Mapping[CommitId, str]) -> None:
        queue = [(id_, f"{name} names it") for id_, name in tips.items()]
        while queue:
            id_, why = queue.pop()
            if id_ in self.result.commits:
                continue
            self.result.commits.add(id_)
            self._commit = id_.hex()
            commit = self._read_commit(id_, why)
            if commit is None:
                continue
            self._tree(commit.tree, "")
            if commit.attachments is not None:
                self._tree(commit.attachments, "attachments:")
            queue += [(parent, f"{id_.hex()[:12]} has it as a parent") for parent in commit.parents]

    def _read_commit(self, id_: CommitId, why: str) -> Commit | None:
        self._check_object(Kind.COMMIT, id_, None)
        try:
            return self._objects.commit(id_)
        except _BAD as error:
            self._report(Kind.COMMIT, id_, None, f"{error}; {why}")
        except RemoteError as error:
            self._report(Kind.COMMIT, id_, None, f"a remote failed: {error}")
        return None

    def _tree(self, root: TreeId, prefix: str) -> None:
        stack: list[tuple[TreeId, Path]] = [(root, ())]
        while stack:
            id_, path = stack.pop()
            if id_ in self.result.trees:
                continue
            self.result.trees.add(id_)
            place = prefix + show(path)
            self._check_object(Kind.TREE, id_, place)
            try:
                entries = self._objects.tree(id_).entries
            except (*_BAD, RemoteError) as error:
                self._report(Kind.TREE, id_, place, str(error))
                continue
            for entry in entries:
                if isinstance(entry, DirEntry):
                    stack.append((entry.tree, (*path, entry.name)))
                elif isinstance(entry, FileEntry):
                    self._file(entry, prefix + show((*path, entry.name)))

    def _file(self, entry: FileEntry, place: str) -> None:
        self.result.files += 1
        if entry.manifest is not None:
            self._check_object(Kind.MANIFEST, entry.manifest, place)
        try:
            chunks: Iterable[ChunkRef] = manifest_of(entry, self._objects).chunks
        except (*_BAD, RemoteError) as error:
            self._report(Kind.MANIFEST, entry.manifest or b"", place, str(error))
            return
        for chunk in chunks:
            if chunk.id not in self._chunk_problems:
                self.result.chunks.add(chunk.id)
                self._chunk_problems[chunk.id] = self._chunk(chunk)
            if (problem := self._chunk_problems[chunk.id]) is not None:
                self._report(Kind.CHUNK, chunk.id, place, problem)

    def _chunk(self, chunk: ChunkRef) -> str | None:
        """What is wrong with a chunk, or None."""
        size = self._checks.sound.get(chunk.id)
        if size is not None:
            return None if size == chunk.size else f"it has {size} bytes, a manifest says {chunk.size}"
        try:
            copies = [c for c in self._store.find(chunk.id) if c.place != LOCAL]
        except IntegrityError as error:
            return str(error)
        if not copies:
            damage = self._checks.damaged.get(chunk.id)
            return damage[2] if damage is not None else "it is missing"
        self.result.remote_chunks += 1
        if self._reader is None:
            return None
        try:
            self._reader.chunk(ChunkId(chunk.id), chunk.size)
        except (*_BAD, RemoteError) as error:
            return str(error)
        return None

    def _check_object(self, kind: Kind, id_: bytes, place: str | None) -> None:
        """Report an object whose only copies here are damaged, even if it is in memory or at a remote."""
        damage = self._checks.damaged.get(id_)
        if damage is not None and id_ not in self._checks.sound:
            self._report(kind, id_, place, damage[2])

    def _report(self, kind: Kind, id_: bytes, place: str | None, problem: str) -> None:
        if kind is not Kind.CHUNK and id_ in self.result.reported:
            return
        self.result.reported.add(id_)
        damage = self._checks.damaged.get(id_)
        pack = None if damage is None else damage[1].hex()
        self.result.problems.append(Problem(kind.name.lower(), id_.hex(), problem, place, self._commit, pack))
