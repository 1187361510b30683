"""What a store holds and what it costs. Told from history and the index; no chunk is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, TypeVar

from shardfs.formats.ids import CommitId, TreeId
from shardfs.formats.tree import DirEntry, FileEntry
from shardfs.history.objects import Objects
from shardfs.store.chains import of_index
from shardfs.store.closure import new_commits
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.store.tally import Tally, codec_name
from shardfs.transfer import plan
from shardfs.transfer.plan import Reachable

K = TypeVar("K", bound=bytes)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CommitStats:
    """One version.

    Attributes:
        id: its commit.
        subject: first line of its message.
        files: regular files in it.
        logical_bytes: sum of their sizes.
        new_bytes: stored bytes of what no older commit needs; at a remote when it was not fetched.
    """

    id: CommitId
    subject: str
    files: int
    logical_bytes: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class CodecStats:
    """The chunks that one codec encodes.

    Attributes:
        codec: its name.
        chunks: how many.
        raw_bytes: bytes of their plaintext.
        stored_bytes: bytes of their encoded forms.
        mean_depth: chunks in a row that must be decoded before one of them, on average; 0 for codecs without bases.
        max_depth: the same at most; more than `MAX_BASE_DEPTH` when one of those chunks is not known.
    """

    codec: str
    chunks: int
    raw_bytes: int
    stored_bytes: int
    mean_depth: float
    max_depth: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A whole store, or some versions of it.

    Attributes:
        logical_bytes: sum of the file sizes of all commits.
        deduplicated_bytes: sum of the plaintext sizes of all distinct chunks.
        stored_bytes: size of all packs here; of some versions that of the payloads which they need.
        commits, trees, manifests, chunks: how many are reachable, each counted once.
        remote_chunks: chunks among them that no pack here holds.
        files: regular files in all commits, the same one counted in each.
        packs: packs here.
        codecs: one row for each codec, that of most stored bytes first; counts also chunks that are in no version
            and needed to decode others.
        versions: one row for each commit, oldest first.
    """

    logical_bytes: int
    deduplicated_bytes: int
    stored_bytes: int
    commits: int
    trees: int
    manifests: int
    chunks: int
    remote_chunks: int
    files: int
    packs: int
    codecs: tuple[CodecStats, ...]
    versions: tuple[CommitStats, ...]

    @property
    def objects(self) -> int:
        """Commits, trees and manifests."""
        return self.commits + self.trees + self.manifests


def stats(store: Store, objects: Objects, tips: Iterable[CommitId]) -> Stats:
    """Counts and bytes of everything that is reachable from `tips`.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object on the way cannot be read.
    """
    count = _Count(store, objects)
    sizes = _TreeSizes(objects)
    rows: list[CommitStats] = []
    for id_ in new_commits(objects.commit, tips, ()):
        new_bytes = count.add(id_)
        commit = objects.commit(id_)
        size = sizes.of(commit.tree)
        rows.append(CommitStats(id_, commit.subject, size.files, size.bytes, new_bytes))
    found = count.found
    packs = store.index.packs(LOCAL)
    return Stats(
        logical_bytes=sum(row.logical_bytes for row in rows),
        deduplicated_bytes=sum(found.chunks.values()),
        stored_bytes=sum(packs.values()),
        commits=len(found.commits),
        trees=len(found.trees),
        manifests=len(found.manifests),
        chunks=len(found.chunks),
        remote_chunks=len(found.chunks) - len(store.index.has(found.chunks, local=True)),
        files=sum(row.files for row in rows),
        packs=len(packs),
        codecs=count.codecs(),
        versions=tuple(rows),
    )


def stats_up_to(store: Store, objects: Objects, tip: CommitId) -> Stats:
    """Counts and bytes of one version and all before it; errors as `stats`."""
    found = stats(store, objects, [tip])
    return replace(found, stored_bytes=sum(version.new_bytes for version in found.versions))


class _Count:
    """Everything that some commits need, each thing counted with the first commit that needs it."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self.found = Reachable()
        self._index = store.index
        self._objects = objects
        self._chains = of_index(store.index)
        self._bases: set[bytes] = set()  # counted for what depends on them, before or without a version that has them
        self._by_codec: dict[int, Tally] = {}

    def add(self, id_: CommitId) -> int:
        """Count a commit; returns the stored bytes of what is new in it."""
        found = self.found
        before = (len(found.chunks), len(found.manifests), len(found.trees))
        plan.reachable(self._objects, [id_], found)
        chunks = _newest(found.chunks, before[0])
        objects = [id_, *_newest(found.manifests, before[1]), *_newest(found.trees, before[2])]
        return self._chunks(chunks) + sum(copy.entry.stored_size for copy in self._index.find_many(objects).values())

    def codecs(self) -> tuple[CodecStats, ...]:
        """The chunks by codec."""
        rows = [
            CodecStats(codec_name(code), t.chunks, t.raw_bytes, t.stored_bytes, t.links / t.chunks, t.depth)
            for code, t in self._by_codec.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.stored_bytes, row.codec)))

    def _chunks(self, ids: Sequence[bytes]) -> int:
        self._chains.learn(ids)
        stored = 0
        stack: list[bytes] = [id_ for id_ in ids if id_ not in self._bases]
        while stack:
            id_ = stack.pop()
            entry = self._chains.entry(id_)
            if entry is None:
                continue
            stored += entry.stored_size
            tally = self._by_codec.setdefault(entry.codec, Tally())
            tally.add(entry, self._chains.depth(id_), entry.raw_size)
            for base in entry.bases:
                if base not in self.found.chunks and base not in self._bases:
                    self._bases.add(base)
                    stack.append(base)
        return stored


def _newest(found: dict[K, V], known: int) -> list[K]:
    """What was added to `found` since it had `known` members."""
    return list(islice(reversed(found), len(found) - known))


class _Size(NamedTuple):
    files: int
    bytes: int


class _TreeSizes:
    """Sizes of trees; each tree is read once however many commits hold it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[TreeId, _Size] = {}

    def of(self, root: TreeId) -> _Size:
        stack = [root]
        while stack:
            tree = self._objects.tree(stack[-1])
            inner = [e.tree for e in tree.entries if isinstance(e, DirEntry)]
            if waiting := [id_ for id_ in inner if id_ not in self._known]:
                stack += waiting
                continue
            files = [e.size for e in tree.entries if isinstance(e, FileEntry)]
            parts = [self._known[id_] for id_ in inner]
            self._known[stack.pop()] = _Size(
                len(files) + sum(p.files for p in parts), sum(files) + sum(p.bytes for p in parts)
            )
        return self._known[root]
