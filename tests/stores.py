"""Small stores for tests: with commits, as packs of a remote, damaged on demand."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from shardfs.codecs import registry
from shardfs.codecs.base import Buffer
from shardfs.errors import RemoteUnavailableError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, PackId, TreeId, chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.pack import Entry
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, Tree, TreeEntry
from shardfs.store.index import LOCAL
from shardfs.store.layout import Layout
from shardfs.store.store import Batch, Store

CHUNK_SIZE = 4096
MAIN = "refs/heads/main"
Files = Mapping[str, bytes]


def commit(
    store: Store,
    files: Files,
    *,
    branch: str | None = "main",
    message: str = "a version",
    parents: Sequence[CommitId] | None = None,
    links: Mapping[str, str] | None = None,
    attachments: Files | None = None,
    time_us: int | None = None,
) -> CommitId:
    """Commit files by slash-separated path as one batch and move a branch (none when `branch` is None)."""
    ref = f"refs/heads/{branch}"
    tip = store.refs.get(ref) if branch is not None else None
    with store.batch("test") as batch:
        tree = put_tree(batch, files, links or {})
        extra = put_tree(batch, attachments, {}) if attachments else None
        before = tuple(parents) if parents is not None else ((tip,) if tip else ())
        when = 1_700_000_000_000_000 + len(message) if time_us is None else time_us
        value = Commit(tree, before, "A Tester <tester@example.org>", when, message, attachments=extra)
        batch.put(Kind.COMMIT, value.to_bytes())
    if branch is not None:
        store.refs.move(ref, tip, value.id, author="A Tester", message=message)
    return value.id


def put_tree(batch: Batch, files: Files, links: Mapping[str, str]) -> TreeId:
    """Store a directory and everything below it."""
    entries: list[TreeEntry] = []
    folders: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        name, _, rest = path.partition("/")
        if rest:
            folders.setdefault(name, {})[rest] = data
        else:
            entries.append(put_file(batch, name.encode(), data))
    entries += [DirEntry(name.encode(), put_tree(batch, inner, {})) for name, inner in folders.items()]
    entries += [LinkEntry(name.encode(), target.encode()) for name, target in links.items()]
    return TreeId(batch.put(Kind.TREE, Tree.of(entries).to_bytes()))


def put_file(batch: Batch, name: bytes, data: bytes) -> FileEntry:
    """Store one file in chunks of `CHUNK_SIZE`."""
    pieces = [data[i : i + CHUNK_SIZE] for i in range(0, len(data), CHUNK_SIZE)]
    ids = [ChunkId(batch.put(Kind.CHUNK, piece)) for piece in pieces]
    if len(ids) < 2:
        return FileEntry(name, len(data), chunk=ids[0] if ids else None)
    manifest = Manifest(len(data), tuple(ChunkRef(i, len(p)) for i, p in zip(ids, pieces, strict=True)))
    return FileEntry(name, len(data), manifest=ManifestId(batch.put(Kind.MANIFEST, manifest.to_bytes())))


def put_delta(batch: Batch, data: bytes, base: bytes) -> bytes:
    """Store a chunk as a difference to another, which is stored too; returns its id."""
    encoded = registry.encode(data, None, [registry.Base(batch.put(Kind.CHUNK, base), base)])
    assert encoded.bases, "no difference worth storing"
    batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
    return chunk_id(data)


def changed(data: bytes, number: int) -> bytes:
    """The same bytes but for a few, others for each number."""
    return data[:number] + b"changed" + data[number + 7 :]


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return b"".join(chunk_id(b"%d %d" % (seed, i)) for i in range(size // 32 + 1))[:size]


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def sql(store: Store, statement: str) -> None:
    """Change the index behind everybody's back."""
    with closing(sqlite3.connect(store.layout.index, isolation_level=None)) as database:
        database.execute(statement)


def local_entries(store: Store, kinds: Iterable[Kind] = tuple(Kind)) -> list[tuple[PackId, Entry]]:
    """All entries of the packs here."""
    return [(p, e) for p in store.index.packs(LOCAL) for e in store.index.entries(p) if e.kind in kinds]


class FolderSource:
    """A remote's packs, read from another store's folder; counts requests, fails or lies on demand."""

    def __init__(self, store: Store) -> None:
        self.layout = Layout(store.layout.root)
        self.requests: list[tuple[PackId, int, int]] = []
        self.before: Callable[[], object] = lambda: None  # called by each request
        self.down = False
        self.lies = 0  # requests that get a flipped bit

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """The bytes of a pack."""
        self.requests.append((pack_id, offset, length))
        self.before()
        if self.down:
            msg = "the remote is down"
            raise RemoteUnavailableError(msg)
        with self.layout.pack(pack_id).open("rb") as file:
            file.seek(offset)
            data = bytearray(file.read(length))
        if self.lies:
            self.lies -= 1
            data[len(data) // 2] ^= 1
        return bytes(data)


def know_remote_packs(store: Store, other: Store, name: str = "origin") -> None:
    """Record the packs of another store as packs of a remote, as fetch does."""
    packs = other.index.packs(LOCAL)
    store.index.add_packs(((p, size, other.index.entries(p)) for p, size in packs.items()), place=name)


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


class XorCodec:
    """A codec that needs a base, for these tests alone."""

    code, name, base_count = 200, "xor", 1

    def encode(self, data: Buffer, base: Buffer) -> bytes:
        return bytes(a ^ b for a, b in zip(data, base, strict=True))

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        del raw_size
        return self.encode(payload, bases[0])
