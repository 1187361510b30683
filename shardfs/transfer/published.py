"""Whether a folder that was published to is a whole repository: every byte and every name, without the original."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from shardfs.codecs.registry import Encoded
from shardfs.errors import FormatError, IntegrityError, NotFoundError, RepositoryNotFoundError, ShardfsError
from shardfs.formats import ref as ref_format
from shardfs.formats.commit import Commit
from shardfs.formats.ids import Kind
from shardfs.formats.manifest import Manifest
from shardfs.formats.pack import Entry
from shardfs.formats.ref import PackSize
from shardfs.formats.tree import DirEntry, FileEntry, Tree
from shardfs.progress import Progress, no_progress
from shardfs.store import packs
from shardfs.store.layout import Layout
from shardfs.store.plaintext import Copy, PlaintextSource

_BLOCK_SIZE: Final = 1 << 20


class PublishedReport(NamedTuple):
    """What is in a folder.

    Attributes:
        refs: branches and tags.
        packs: packs that are listed.
        size: bytes of these.
        problems: what is wrong, one line each; empty when a reader can read everything.
    """

    refs: int
    packs: int
    size: int
    problems: list[str]


def check_published(folder: Path, progress: Progress | None = None) -> PublishedReport:
    """Read all listed packs, and follow every branch and tag to the chunks that it needs.

    Args:
        folder: that was published to.
        progress: told the bytes that were read and all.

    Raises:
        RepositoryNotFoundError: it has no listings. MalformedError, UnsupportedVersionError: one of them is damaged.
        StoreError: the disk does not let us read.
    """
    layout = Layout(folder)
    try:
        _, refs = ref_format.refs_from_bytes(layout.info_refs.read_bytes())
        listed = ref_format.packs_from_bytes(layout.info_packs.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"nothing was published to {folder}"
        raise RepositoryNotFoundError(msg) from error
    found = _Published(layout)
    problems = list(found.read(listed, progress or no_progress))
    problems += [f"{name}: {problem}" for name, commit in refs.items() for problem in found.lacks(commit)]
    return PublishedReport(len(refs), len(listed), sum(pack.size for pack in listed), problems)


class _Published:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._copies: dict[bytes, list[tuple[Entry, Path]]] = {}
        self._source = PlaintextSource(self._copies_of)
        self._complete: set[tuple[Kind, bytes]] = set()  # looked at, with all that they need

    def read(self, listed: Iterable[PackSize], progress: Progress) -> Iterator[str]:
        """What is wrong with packs, by themselves."""
        done, total = 0, sum(pack.size for pack in listed)
        for pack in listed:
            progress(done, total, "bytes")
            path = self._layout.pack(pack.id)
            try:
                if _digest(path) != (pack.id, pack.size):
                    yield f"pack {pack.id.hex()} is not what its name says"
                for entry in packs.read_table(path).entries:
                    self._copies.setdefault(entry.id, []).append((entry, path))
            except FileNotFoundError:
                yield f"pack {pack.id.hex()} is listed and not there"
            except (IntegrityError, FormatError, OSError) as error:
                yield f"pack {pack.id.hex()} cannot be read: {error}"
            done += pack.size
        progress(total, total, "bytes")

    def lacks(self, commit: bytes) -> Iterator[str]:
        """What is missing of a commit; what is missing twice is said once."""
        left: list[tuple[Kind, bytes]] = [(Kind.COMMIT, commit)]
        while left:
            kind, id_ = left.pop()
            if (kind, id_) in self._complete:
                continue
            self._complete.add((kind, id_))
            try:
                left += self._needs(kind, id_)
            except (ShardfsError, OSError) as error:
                yield str(error)

    def _needs(self, kind: Kind, id_: bytes) -> Iterable[tuple[Kind, bytes]]:
        if kind is Kind.CHUNK:
            return self._bases(id_)
        data = self._source.read(id_, kind)
        if kind is Kind.COMMIT:
            commit = Commit.from_bytes(data)
            trees = [commit.tree] if commit.attachments is None else [commit.tree, commit.attachments]
            return [(Kind.COMMIT, parent) for parent in commit.parents] + [(Kind.TREE, tree) for tree in trees]
        if kind is Kind.TREE:
            return [need for entry in Tree.from_bytes(data).entries for need in _below(entry)]
        return [(Kind.CHUNK, chunk.id) for chunk in Manifest.from_bytes(data).chunks]

    def _bases(self, id_: bytes) -> Iterable[tuple[Kind, bytes]]:
        """Packs were compared with their ids: a chunk that was right when it was stored is so still."""
        known = [entry for entry, _ in self._copies.get(id_, []) if entry.kind is Kind.CHUNK]
        if not known:
            msg = f"chunk {id_.hex()} is in no listed pack"
            raise NotFoundError(msg)
        whole = [entry for entry in known if all(base in self._copies for base in entry.bases)]
        return [(Kind.CHUNK, base) for base in (whole or known)[0].bases]

    def _copies_of(self, id_: bytes, kind: Kind) -> list[Copy]:
        return [
            (entry, partial(_payload, path, entry)) for entry, path in self._copies.get(id_, []) if entry.kind is kind
        ]


def _below(entry: object) -> list[tuple[Kind, bytes]]:
    if isinstance(entry, DirEntry):
        return [(Kind.TREE, entry.tree)]
    if isinstance(entry, FileEntry) and entry.manifest is not None:
        return [(Kind.MANIFEST, entry.manifest)]
    if isinstance(entry, FileEntry) and entry.chunk is not None:
        return [(Kind.CHUNK, entry.chunk)]
    return []


def _digest(path: Path) -> tuple[bytes, int]:
    hasher, size = blake3(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_SIZE):
            hasher.update(block)
            size += len(block)
    return hasher.digest(), size


def _payload(path: Path, entry: Entry) -> Encoded:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Encoded(entry.codec, os.pread(fd, entry.stored_size, entry.offset), entry.bases)
    finally:
        os.close(fd)
