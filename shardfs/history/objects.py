"""Parsed objects by id, over any source of verified plaintext."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from shardfs.codecs.registry import Encoded
from shardfs.errors import FormatError, ObjectCorruptedError, UnsupportedVersionError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, TreeId
from shardfs.formats.manifest import Manifest
from shardfs.formats.tree import Tree

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Plaintext bytes of parsed objects that stay in memory, per kind. A parsed tree costs about three times its bytes.
_TREE_BUDGET: Final = 32 << 20
_COMMIT_BUDGET: Final = 16 << 20
_MANIFEST_BUDGET: Final = 16 << 20


class ObjectSource(Protocol):
    """Where verified plaintext of objects comes from."""

    def object(self, kind: Kind, id_: bytes) -> bytes:
        """The plaintext of an object, verified against its id.

        Raises:
            ObjectNotFoundError, ObjectCorruptedError, RemoteError: no good copy.
        """
        ...


class ChunkSource(Protocol):
    """Where verified plaintext of chunks comes from."""

    def chunk(self, id_: ChunkId, raw_size: int) -> bytes:
        """The plaintext of a chunk, exactly `raw_size` bytes, verified against its id.

        Raises:
            ChunkNotFoundError, ChunkCorruptedError, RemoteError: no good copy.
        """
        ...


class BaseSource(ChunkSource, Protocol):
    """Where the bases of new chunks come from."""

    def remember(self, id_: ChunkId, plaintext: bytes | memoryview) -> None:
        """Take note of a chunk that takes long to decode: it will be the base of the next version."""
        ...

    def payload(self, kind: Kind, id_: bytes) -> tuple[Encoded, bytes]:
        """The best good copy of an id as it is stored, and its plaintext; errors as `ChunkSource.chunk`."""
        ...


class _Lru(Generic[K, V]):
    """Parsed values by id up to a budget of plaintext bytes; thread-safe."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            self._items.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        with self._lock:
            if key in self._items:
                return
            self._items[key] = (value, size)
            self._size += size
            # The newest stays even if it alone is too large: each lookup in a huge directory would parse it anew.
            while self._size > self._budget and len(self._items) > 1:
                _, (_, gone) = self._items.popitem(last=False)
                self._size -= gone


class Objects:
    """Commits, trees and manifests by id, with a bounded memory of parsed ones. Safe to share between threads."""

    def __init__(self, source: ObjectSource) -> None:
        self._source = source
        self._commits: _Lru[bytes, Commit] = _Lru(_COMMIT_BUDGET)
        self._trees: _Lru[bytes, Tree] = _Lru(_TREE_BUDGET)
        self._manifests: _Lru[bytes, Manifest] = _Lru(_MANIFEST_BUDGET)

    def commit(self, id_: CommitId) -> Commit:
        """The commit with this id.

        Raises:
            ObjectNotFoundError, ObjectCorruptedError, RemoteError: no good copy.
            UnsupportedVersionError: a newer program wrote it.
        """
        return self._load(Kind.COMMIT, id_, self._commits, Commit.from_bytes)

    def tree(self, id_: TreeId) -> Tree:
        """The tree with this id; errors as `commit`."""
        return self._load(Kind.TREE, id_, self._trees, Tree.from_bytes)

    def manifest(self, id_: ManifestId) -> Manifest:
        """The manifest with this id; errors as `commit`."""
        return self._load(Kind.MANIFEST, id_, self._manifests, Manifest.from_bytes)

    def _load(self, kind: Kind, id_: bytes, memory: _Lru[bytes, V], parse: Callable[[bytes], V]) -> V:
        found = memory.get(id_)
        if found is None:
            data = self._source.object(kind, id_)
            try:
                found = parse(data)
            except UnsupportedVersionError:
                raise  # sound, but a newer program's
            except FormatError as error:
                msg = f"{kind.name.lower()} {id_.hex()[:12]} breaks its format: {error}"
                raise ObjectCorruptedError(msg) from error
            memory.put(id_, found, len(data))
        return found
