"""What commits need: the ids that are reachable from them, without what is known to be there already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from shardfs.errors import FormatError, IntegrityError, NotFoundError, ObjectCorruptedError
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, TreeId
from shardfs.formats.tree import DirEntry, FileEntry
from shardfs.history.objects import Objects
from shardfs.store.closure import new_commits


@dataclass
class Reachable:
    """Ids in the order in which they were met; chunks with their plaintext sizes in bytes."""

    commits: dict[CommitId, None] = field(default_factory=dict)
    trees: dict[TreeId, None] = field(default_factory=dict)
    manifests: dict[ManifestId, None] = field(default_factory=dict)
    chunks: dict[ChunkId, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.commits) + len(self.trees) + len(self.manifests) + len(self.chunks)

    def __iter__(self) -> Iterator[tuple[Kind, bytes]]:
        """Kinds and ids, chunks first: what is stored in this order never names something later."""
        yield from ((Kind.CHUNK, id_) for id_ in self.chunks)
        yield from ((Kind.MANIFEST, id_) for id_ in self.manifests)
        yield from ((Kind.TREE, id_) for id_ in self.trees)
        yield from ((Kind.COMMIT, id_) for id_ in self.commits)


def readable(objects: Objects, commits: Iterable[CommitId]) -> list[CommitId]:
    """Those of some commits that can be read: one damaged ref must not stop work on the others."""
    found = []
    for id_ in commits:
        with suppress(NotFoundError, IntegrityError, FormatError):
            objects.commit(id_)
            found.append(id_)
    return found


def reachable(
    objects: Objects, commits: Iterable[CommitId], into: Reachable | None = None, *, changes: bool = False
) -> Reachable:
    """What the given commits need, themselves included, their parents not.

    Args:
        objects: where to read.
        commits: parents before children, as `new_commits` gives them; what the parents of the first ones need is
            taken as known, so that only changes are walked.
        into: the result to add to; ids in it are not walked again.
        changes: leave out chunks that a changed file has in common with the file of that name before. What is left
            is a small part of a model of which few tensors changed.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object on the way cannot be read.
    """
    found = Reachable() if into is None else into
    walker = _Walker(objects, found, changes=changes)
    for id_ in commits:
        commit = objects.commit(id_)
        befores = [objects.commit(parent) for parent in commit.parents]
        walker.tree(commit.tree, [b.tree for b in befores])
        if commit.attachments is not None:
            walker.tree(commit.attachments, [b.attachments for b in befores if b.attachments is not None])
        found.commits[id_] = None
    return found


def closure(objects: Objects, tips: Iterable[CommitId], extra: Iterable[tuple[Kind, bytes]] = ()) -> Reachable:
    """Everything that is reachable from commits and from other ids of any kind; errors as `reachable`."""
    found = Reachable()
    walker = _Walker(objects, found)
    commits = list(tips)
    for kind, id_ in extra:
        match kind:
            case Kind.COMMIT:
                commits.append(CommitId(id_))
            case Kind.TREE:
                walker.tree(TreeId(id_), [])
            case Kind.MANIFEST:
                walker.manifest(ManifestId(id_), None)
            case Kind.CHUNK:
                found.chunks.setdefault(ChunkId(id_), 0)
    return reachable(objects, new_commits(objects.commit, commits, ()), found)


class _Walker:
    def __init__(self, objects: Objects, found: Reachable, *, changes: bool = False) -> None:
        self._objects = objects
        self._found = found
        self._changes = changes

    def tree(self, root: TreeId, befores: Collection[TreeId]) -> None:
        """Everything below a tree that is not at the same path in one of the trees `befores`."""
        stack: list[tuple[TreeId, Collection[TreeId]]] = [(root, befores)]
        while stack:
            id_, olds = stack.pop()
            if id_ in self._found.trees or id_ in olds:
                continue
            self._found.trees[id_] = None
            names = [self._objects.tree(old).by_name for old in olds]
            for entry in self._objects.tree(id_).entries:
                old_entries = [found for by_name in names if (found := by_name.get(entry.name)) is not None]
                if isinstance(entry, DirEntry):
                    stack.append((entry.tree, [e.tree for e in old_entries if isinstance(e, DirEntry)]))
                elif isinstance(entry, FileEntry):
                    self._file(entry, old_entries)

    def _file(self, entry: FileEntry, olds: Iterable[object]) -> None:
        before = [old for old in olds if isinstance(old, FileEntry)]
        if any((old.chunk, old.manifest) == (entry.chunk, entry.manifest) for old in before):
            return
        if entry.chunk is not None:
            self._found.chunks[entry.chunk] = entry.size
        if entry.manifest is not None:
            self.manifest(entry.manifest, entry.size, before if self._changes else ())

    def manifest(self, id_: ManifestId, size: int | None, before: Iterable[FileEntry] = ()) -> None:
        """A manifest and its chunks without those of the files `before`."""
        if id_ in self._found.manifests:
            return
        manifest = self._objects.manifest(id_)
        if size is not None and manifest.size != size:
            msg = f"manifest {id_.hex()[:12]} has {manifest.size} bytes, its tree says {size}"
            raise ObjectCorruptedError(msg)
        self._found.manifests[id_] = None
        known = {chunk.id for old in before if old.manifest for chunk in self._objects.manifest(old.manifest).chunks}
        self._found.chunks.update((chunk.id, chunk.size) for chunk in manifest.chunks if chunk.id not in known)
