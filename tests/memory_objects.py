"""Objects and chunks in a dictionary, for tests of what needs no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardfs.errors import ChunkNotFoundError, ObjectNotFoundError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, TreeId, chunk_id, content_id
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.tree import EMPTY_TREE, DirEntry, FileEntry, LinkEntry, Tree, TreeEntry

# A directory: names to contents, links (their targets as text) and directories.
Folder = Mapping[bytes, "bytes | str | Folder"]


class Memory:
    """An `ObjectSource` and `ChunkSource`; `reads` counts what was asked for."""

    def __init__(self) -> None:
        self.data: dict[tuple[Kind, bytes], bytes] = {}
        self.reads: list[bytes] = []

    def object(self, kind: Kind, id_: bytes) -> bytes:
        """The bytes of an object."""
        self.reads.append(id_)
        if (kind, id_) not in self.data:
            msg = f"no {kind.name} {id_.hex()[:12]}"
            raise ObjectNotFoundError(msg)
        return self.data[kind, id_]

    def chunk(self, id_: ChunkId, raw_size: int) -> bytes:
        """The bytes of a chunk."""
        self.reads.append(id_)
        found = self.data.get((Kind.CHUNK, id_))
        if found is None or len(found) != raw_size:
            msg = f"no chunk {id_.hex()[:12]}"
            raise ChunkNotFoundError(msg)
        return found

    def put(self, kind: Kind, data: bytes) -> bytes:
        """Keep bytes."""
        id_ = content_id(kind, data)
        self.data[kind, id_] = data
        return id_

    def put_file(self, name: bytes, data: bytes, size: int = 1 << 20) -> FileEntry:
        """Keep a file in chunks of `size` bytes."""
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        chunks = tuple(ChunkRef(ChunkId(self.put(Kind.CHUNK, p)), len(p)) for p in pieces)
        if len(chunks) < 2:
            return FileEntry(name, len(data), chunk=chunk_id(data) if chunks else None)
        manifest = Manifest(len(data), chunks)
        return FileEntry(name, len(data), manifest=ManifestId(self.put(Kind.MANIFEST, manifest.to_bytes())))

    def put_tree(self, folder: Folder) -> TreeId:
        """Keep a directory and all below it; iterative in nothing, so of moderate depth."""
        entries: list[TreeEntry] = []
        for name, value in folder.items():
            if isinstance(value, bytes):
                entries.append(self.put_file(name, value))
            elif isinstance(value, str):
                entries.append(LinkEntry(name, value.encode()))
            else:
                entries.append(DirEntry(name, self.put_tree(value)))
        return TreeId(self.put(Kind.TREE, Tree.of(entries).to_bytes()))

    def put_commit(
        self, parents: Sequence[CommitId] = (), message: str = "a version", time_us: int = 0, tree: TreeId | None = None
    ) -> CommitId:
        """Keep a commit."""
        commit = Commit(EMPTY_TREE.id if tree is None else tree, tuple(parents), "A Tester", time_us, message)
        return CommitId(self.put(Kind.COMMIT, commit.to_bytes()))
