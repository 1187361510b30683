"""Which chunk is the next version of which, as history tells it."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from shardfs.diff import tensors
from shardfs.diff.trees import changes
from shardfs.errors import FormatError, IntegrityError, NotFoundError, RemoteError, StoreError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, ManifestId, TreeId
from shardfs.formats.tree import FileEntry
from shardfs.history import paths
from shardfs.history.content import FileReader, manifest_of
from shardfs.history.objects import ChunkSource, Objects
from shardfs.tensors import detect
from shardfs.tensors.layout import Stretch

_log = logging.getLogger(__name__)

_KEPT_LAYOUTS: Final = 256  # of the files of a model; each is needed again for the commit before
_UNREADABLE: Final = (FormatError, IntegrityError, NotFoundError, RemoteError, StoreError)


@dataclass
class Lineages:
    """What history tells of chunks.

    Attributes:
        ranks: chunks by the order in which history was walked: newest version first, in the order of its files.
        newer: the next version of a chunk, where there is one; it has a lower rank.
        meetings: pairs of chunks, one a version of the other, where two lines of history meet.
        dtypes: what the bytes of a chunk are, where a layout tells.
    """

    ranks: dict[bytes, int] = field(default_factory=dict)
    newer: dict[bytes, bytes] = field(default_factory=dict)
    meetings: list[tuple[bytes, bytes]] = field(default_factory=list)
    dtypes: dict[bytes, str] = field(default_factory=dict)


def lineages(objects: Objects, chunks: ChunkSource, tips: Iterable[CommitId]) -> Lineages:
    """Walk everything that some commits reach.

    Args:
        objects: reads history.
        chunks: reads the headers of model files; one that cannot be read tells nothing.
        tips: the most important first: what they hold is the newest.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object on the way cannot be read.
    """
    walk = _Walk(objects, chunks)
    for tip in tips:
        walk.line(tip)
    return walk.found


class _Walk:
    def __init__(self, objects: Objects, chunks: ChunkSource) -> None:
        self._objects = objects
        self._chunks = chunks
        self._commits: set[CommitId] = set()
        self._manifests: set[ManifestId] = set()
        self._followers: set[bytes] = set()  # chunks that are the next version of another
        self._layouts: OrderedDict[ManifestId, list[Stretch]] = OrderedDict()
        self.found = Lineages()

    def line(self, tip: CommitId) -> None:
        """A commit and all its ancestors, first parents first."""
        if tip not in self._commits:
            self._see_trees(self._objects.commit(tip))
        todo = [tip]
        while todo:
            id_ = todo.pop()
            if id_ in self._commits:
                continue
            self._commits.add(id_)
            commit = self._objects.commit(id_)
            for parent in commit.parents:
                self._step_back(commit.tree, self._objects.commit(parent))
            todo += reversed(commit.parents)

    def _step_back(self, tree: TreeId, parent: Commit) -> None:
        olds: list[tuple[FileEntry, paths.Path]] = []
        pairs: dict[tuple[bytes, bytes], None] = {}  # in the order of the files
        for change in changes(self._objects, parent.tree, tree):
            if isinstance(change.old, FileEntry):
                olds.append((change.old, change.path))
                if isinstance(change.new, FileEntry):
                    pairs.update(dict.fromkeys(self._same_places(change.new, change.old, change.path)))
        # A chunk that changed into several, or several into one, is a constant, zeros mostly, and no version of them.
        news, befores = Counter(new for new, _ in pairs), Counter(old for _, old in pairs)
        for new, old in pairs:
            if news[new] == befores[old] == 1:
                self._link(new, old)
        for entry, path in olds:
            self._see(entry, path)
        if parent.attachments is not None:
            self._see_tree(parent.attachments)

    def _see_trees(self, commit: Commit) -> None:
        self._see_tree(commit.tree)
        if commit.attachments is not None:
            self._see_tree(commit.attachments)

    def _see_tree(self, tree: TreeId) -> None:
        for path, entry in paths.files(self._objects, tree):
            self._see(entry, path)

    def _see(self, entry: FileEntry, path: paths.Path) -> None:
        """Rank the chunks of a file behind all that was seen before."""
        if entry.manifest is not None and entry.manifest in self._manifests:
            return
        manifest = manifest_of(entry, self._objects)
        for chunk in manifest.chunks:
            self.found.ranks.setdefault(chunk.id, len(self.found.ranks))
        if entry.manifest is not None:
            self._manifests.add(entry.manifest)
            for stretch in self._stretches(entry, path):
                if stretch.dtype is not None:
                    for chunk in manifest.within(stretch.start, stretch.end):
                        self.found.dtypes.setdefault(chunk.id, stretch.dtype)

    def _same_places(self, new: FileEntry, old: FileEntry, path: paths.Path) -> Iterator[tuple[bytes, bytes]]:
        """Chunks of a file, each with the one that was at its place before."""
        if new.manifest is None or old.manifest is None or new.manifest == old.manifest:
            return
        manifests = manifest_of(new, self._objects), manifest_of(old, self._objects)
        for match in tensors.matches(self._stretches(new, path), self._stretches(old, path)):
            for chunk, before in tensors.same_places(match, *manifests):
                yield chunk.id, before.id

    def _link(self, new: bytes, old: bytes) -> None:
        if old in self.found.ranks or new in self._followers:
            self.found.meetings.append((new, old))
        else:
            self.found.newer[old] = new
            self._followers.add(new)

    def _stretches(self, entry: FileEntry, path: paths.Path) -> list[Stretch]:
        id_ = entry.manifest
        if id_ is None or self._objects.manifest(id_).media is None:
            return []
        found = self._layouts.get(id_)
        if found is None:
            found = self._read_stretches(entry, path)
        self._layouts[id_] = found
        self._layouts.move_to_end(id_)
        if len(self._layouts) > _KEPT_LAYOUTS:
            self._layouts.popitem(last=False)
        return found

    def _read_stretches(self, entry: FileEntry, path: paths.Path) -> list[Stretch]:
        try:
            reader = FileReader(entry, self._objects, self._chunks)
            return tensors.large(detect(reader.read_at, reader.size, path[-1]))
        except _UNREADABLE as error:
            _log.info("the layout of %s cannot be read: %s", paths.show(path), error)
            return []
