"""Whether everything below a commit is in the store, so that a ref may name it.

Only what no ref of the store names yet is read: commits back to the ones that refs already reach, and in each tree
only the entries that differ from the same path in the commit's first parent.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.errors import ConflictError, FormatError, IntegrityError, NotFoundError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, TreeId
from shardfs.formats.manifest import Manifest
from shardfs.formats.tree import EMPTY_TREE, DirEntry, FileEntry, Tree
from shardfs.store import chains
from shardfs.store.plaintext import read_plaintext
from shardfs.store.store import Store


def new_commits(
    commit_of: Callable[[CommitId], Commit],
    tips: Iterable[CommitId],
    known: Iterable[CommitId],
    is_readable: Callable[[CommitId], bool] = lambda _: True,
) -> list[CommitId]:
    """Commits reachable from `tips` and not from `known`, oldest first.

    Both sides are walked newest first and only as far as needed. A clock that ran backwards makes the answer longer,
    never shorter.

    Args:
        commit_of: reads a commit; what it raises is raised here.
        tips: where to start.
        known: commits that are there with all they need.
        is_readable: asked about parents of known commits; of those that are not nothing is known.
    """
    old = set(known)
    found: dict[CommitId, None] = {}  # in the order of finding
    queued: set[CommitId] = set()
    queue: list[tuple[int, CommitId]] = []
    waiting: set[CommitId] = set()  # queued and not known to be old

    def push(ids: Iterable[CommitId]) -> None:
        for id_ in ids:
            if id_ not in old and id_ not in found:
                waiting.add(id_)
            if id_ not in queued:
                queued.add(id_)
                heapq.heappush(queue, (-commit_of(id_).time_us, id_))

    push([*tips, *old])
    while waiting:
        _, id_ = heapq.heappop(queue)
        parents = commit_of(id_).parents
        if id_ in old:
            parents = tuple(parent for parent in parents if is_readable(parent))
            old.update(parents)
            waiting.difference_update(parents)
        else:
            waiting.discard(id_)
            found[id_] = None
        push(parents)
    return [id_ for id_ in reversed(found) if id_ not in old]


def check_closure(store: Store, tip: CommitId, complete: Iterable[CommitId] | None = None) -> None:
    """Return if all commits, trees, manifests and chunks that `tip` needs are in local packs.

    Args:
        store: where they must be.
        tip: the commit.
        complete: commits of which that is known; None: those that refs name.

    Raises:
        ConflictError: something is missing; the message names it.
        ObjectCorruptedError: an object that must be read is damaged.
        FormatError: an object breaks its format, or is of a newer one.
    """
    try:
        _Closure(store).check(tip, store.refs.list().values() if complete is None else complete)
    except NotFoundError as error:
        msg = f"commit {tip.hex()[:12]} is not complete here: {error}; push what is missing first"
        raise ConflictError(msg) from error


class _Closure:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._commits: dict[CommitId, Commit] = {}
        self._trees: set[TreeId] = set()  # below which nothing is missing
        self._contents: set[tuple[bytes, int]] = set()  # the same of chunks and manifests, with their sizes

    def check(self, tip: CommitId, complete: Iterable[CommitId]) -> None:
        known = filter(self._is_readable, complete)
        for commit_id in new_commits(self._commit, [tip], known, self._is_readable):
            commit = self._commit(commit_id)
            before = self._commit(commit.parents[0]) if commit.parents else None
            self._check_tree(commit.tree, None if before is None else before.tree)
            if commit.attachments is not None:
                self._check_tree(commit.attachments, None if before is None else before.attachments)

    def _is_readable(self, commit_id: CommitId) -> bool:
        """Whether a commit can be read: a store with damaged history must still take sound commits."""
        try:
            self._commit(commit_id)
        except (NotFoundError, IntegrityError, FormatError):
            return False
        return True

    def _commit(self, commit_id: CommitId) -> Commit:
        found = self._commits.get(commit_id)
        if found is None:
            found = Commit.from_bytes(read_plaintext(self._store, commit_id, Kind.COMMIT))
            self._commits[commit_id] = found
        return found

    def _tree(self, tree_id: TreeId) -> Tree:
        return Tree.from_bytes(read_plaintext(self._store, tree_id, Kind.TREE))

    def _tree_before(self, tree_id: TreeId) -> Tree:
        try:
            return self._tree(tree_id)
        except (NotFoundError, IntegrityError):
            return EMPTY_TREE

    def _check_tree(self, tree_id: TreeId, before_id: TreeId | None) -> None:
        """Check a tree; `before_id` is the tree at the same path of a commit that is complete."""
        stack = [(tree_id, before_id)]
        while stack:
            tree_id, before_id = stack.pop()
            if tree_id == before_id or tree_id in self._trees:
                continue
            self._trees.add(tree_id)
            before = EMPTY_TREE if before_id is None else self._tree_before(before_id)
            files: list[FileEntry] = []
            for entry in self._tree(tree_id).entries:
                old = before.by_name.get(entry.name)
                if isinstance(entry, DirEntry):
                    stack.append((entry.tree, old.tree if isinstance(old, DirEntry) else None))
                elif isinstance(entry, FileEntry) and not _same_content(entry, old):
                    files.append(entry)
            self._check_files(files)

    def _check_files(self, files: list[FileEntry]) -> None:
        chunks = {(file.chunk, file.size) for file in files if file.chunk is not None}
        for file in files:
            if file.manifest is not None and (file.manifest, file.size) not in self._contents:
                manifest = Manifest.from_bytes(read_plaintext(self._store, file.manifest, Kind.MANIFEST))
                if manifest.size != file.size:
                    msg = f"file {file.name!r} of {file.size} bytes has a manifest of {manifest.size} bytes"
                    raise ConflictError(msg)
                self._contents.add((file.manifest, file.size))
                chunks.update((chunk.id, chunk.size) for chunk in manifest.chunks)
        self._check_chunks(chunks - self._contents)

    def _check_chunks(self, wanted: set[tuple[ChunkId, int]]) -> None:
        """Return if chunks can be read, and have the sizes by which they are named: a reader insists on those."""
        ids = {id_ for id_, _ in wanted}
        missing = ids - self._store.index.has(ids, local=True)
        if missing:
            msg = f"{len(missing)} chunks are not here, the first is {min(missing).hex()}"
            raise NotFoundError(msg)
        known = chains.of_index(self._store.index)
        known.learn(ids)
        for id_, size in wanted:
            found = known.size(id_)
            if found not in (None, size):
                msg = f"chunk {id_.hex()[:12]} has {found} bytes and is named as one of {size}"
                raise ConflictError(msg)
        for id_ in ids:
            if known.depth(id_) > MAX_BASE_DEPTH:
                self._check_copies(id_)
        self._contents.update(wanted)

    def _check_copies(self, id_: bytes) -> None:
        """Return if some copy of a chunk can be read though the first one names bases that are not here."""
        try:
            read_plaintext(self._store, id_, Kind.CHUNK)
        except IntegrityError as error:
            msg = f"chunk {id_.hex()[:12]} needs bases that are not here"
            raise NotFoundError(msg) from error


def _same_content(entry: FileEntry, old: object) -> bool:
    return isinstance(old, FileEntry) and (entry.size, entry.chunk, entry.manifest) == (
        old.size,
        old.chunk,
        old.manifest,
    )
