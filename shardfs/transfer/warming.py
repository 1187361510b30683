"""Files of a revision brought into the cache before they are needed: as plain files, or as they are stored."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from shardfs.errors import OutOfSpaceError, PathNotFoundError
from shardfs.formats.ids import TreeId
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.tree import DirEntry, FileEntry
from shardfs.history import paths
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.progress import Progress
from shardfs.store.cache import Cache
from shardfs.store.index import Index
from shardfs.transfer import contents
from shardfs.transfer.contents import Picked
from shardfs.transfer.facts import readable
from shardfs.transfer.reader import Reader
from shardfs.transfer.tier import Tier, content_of

_KEPT_BYTES: Final = 8 << 20  # of chunks that are brought before the cache must have them
_POLL_S: Final = 0.1  # how often to look whether others have finished
_KEPT_S: Final = 5.0  # for which the cache may take to keep what came
_BLOCK: Final = 1 << 20  # bytes of one read into the page cache

Files = list[tuple[paths.Path, FileEntry]]


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What `warm` did.

    Attributes:
        files: distinct contents that were asked for.
        bytes: their size.
        fetched_bytes: of those, what was on no disk here.
        made: plain files that were written.
        made_bytes: their size.
        page_cache_bytes: bytes of plain files that were read into memory.
    """

    files: int
    bytes: int
    fetched_bytes: int = 0
    made: int = 0
    made_bytes: int = 0
    page_cache_bytes: int = 0


class Presence(NamedTuple):
    """Where the bytes of files are; one byte may be in several places.

    Attributes:
        files: distinct contents.
        bytes: their size.
        packs: bytes that can be decoded from packs here alone.
        cache: other bytes that can be with what is in the cache.
        plain: bytes of files that have a plain file.
        plain_files: how many have one.
        missing: bytes that only a remote has.
    """

    files: int
    bytes: int
    packs: int
    cache: int
    plain: int
    plain_files: int
    missing: int


def select(objects: Objects, tree: TreeId, path: str) -> Files:
    """The files at or below a path of a tree, each distinct content once; empty ones are left out.

    Raises:
        PathNotFoundError: nothing there, or a link. ObjectNotFoundError, ObjectCorruptedError, RemoteError: a tree
            cannot be read.
    """
    names = paths.parse(path)
    entry = paths.lookup(objects, tree, names)
    if isinstance(entry, DirEntry):
        found = {content_of(e): (p, e) for p, e in paths.files(objects, entry.tree, names)}
    elif isinstance(entry, FileEntry):
        found = {content_of(entry): (names, entry)}
    else:
        msg = f"{path} is a link; name what it leads to"
        raise PathNotFoundError(msg)
    return [item for id_, item in found.items() if id_ is not None]


class Warmer:
    """Brings files here. The parts stay the caller's."""

    def __init__(self, index: Index, objects: Objects, reader: Reader, cache: Cache, tier: Tier) -> None:
        self._index = index
        self._objects = objects
        self._reader = reader
        self._cache = cache
        self._tier = tier

    @property
    def makes_files(self) -> bool:
        """Whether plain files are switched on."""
        return self._tier.is_on

    def presence(self, files: Files) -> Presence:
        """Where the bytes of files are; nothing is read but manifests.

        Raises:
            ObjectNotFoundError, ObjectCorruptedError, RemoteError: a manifest cannot be read.
        """
        here = packs = plain = plain_files = missing = 0
        for _, entry in files:
            chunks = manifest_of(entry, self._objects).chunks
            ids = {chunk.id for chunk in chunks}
            local = readable(ids, self._index, None)
            near = readable(ids, self._index, self._cache)
            packs += sum(chunk.size for chunk in chunks if chunk.id in local)
            here += sum(chunk.size for chunk in chunks if chunk.id in near)
            if self.holds(entry):
                plain += entry.size
                plain_files += 1
            else:
                missing += sum(chunk.size for chunk in chunks if chunk.id not in near)
        total = sum(entry.size for _, entry in files)
        return Presence(len(files), total, packs, here - packs, plain, plain_files, missing)

    def warm(self, files: Files, progress: Progress, *, page_cache: bool = False) -> WarmReport:
        """Bring files here and make plain files of them, where those are switched on.

        Raises:
            OutOfSpaceError: they do not fit; nothing was fetched. Errors of `FileReader.read_at`: what came before is
                here, and is not fetched again.
        """
        total = sum(entry.size for _, entry in files)
        if not self._tier.is_on:
            chunks = [chunk for _, entry in files for chunk in manifest_of(entry, self._objects).chunks]
            fetched = self._bring(chunks, "fetching", progress)
            return WarmReport(len(files), total, fetched_bytes=fetched)
        lacking = [(path, entry) for path, entry in files if not self.holds(entry)]
        self._check_room(files, lacking)
        far = self._far(chunk for _, entry in lacking for chunk in manifest_of(entry, self._objects).chunks)
        todo, done = sum(entry.size for _, entry in lacking), 0
        made: list[int] = []
        for path, entry in lacking:
            tell = partial(_tell, progress, done, todo, paths.show(path))
            if self._make(entry, tell):
                made.append(entry.size)
            done += entry.size
            progress(done, todo, paths.show(path))
        loaded = sum(self._load(entry, progress, total) for _, entry in files) if page_cache else 0
        return WarmReport(len(files), total, sum(chunk.size for chunk in far), len(made), sum(made), loaded)

    def prefetch(self, picked: Picked, progress: Progress) -> int:
        """Bring chunks into the cache as they are stored; returns the bytes of those that were on no disk here.

        Raises:
            OutOfSpaceError: the cache could not keep them. Errors of reading a chunk: what came before is here.
        """
        return self._bring(picked.chunks.values(), "prefetching", progress)

    def check_fits(self, sizes: dict[bytes, int], name: str) -> None:
        """See that plain files of these sizes by id can be in the cache together, beside what is pinned.

        Raises:
            OutOfSpaceError: they cannot.
        """
        pinned = _pinned(self._cache)
        both = pinned | sizes
        room = self._cache.room_for_files()
        if not room:
            msg = f"the cache {self._cache.directory} cannot be used or is too small: see cache.dir and cache.size"
            raise OutOfSpaceError(msg)
        if sum(both.values()) > room:
            others = sum(size for id_, size in pinned.items() if id_ not in sizes)
            msg = (
                f"{name} has {sum(sizes.values())} bytes in files, cache.size has room for {room}, of which "
                f"{others} are pinned; raise it with `shardfs config set cache.size`, or unpin something"
            )
            raise OutOfSpaceError(msg)

    def holds(self, entry: FileEntry) -> bool:
        """Whether there is a plain file with the content of a file."""
        id_ = content_of(entry)
        return id_ is not None and self._tier.is_on and self._tier.files.holds(id_, entry.size)

    def _check_room(self, files: Files, lacking: Files) -> None:
        self.check_fits({content_of(entry) or b"": entry.size for _, entry in files}, "this")
        needed = sum(entry.size for _, entry in lacking)
        free = self._cache.room_on_disk()
        if needed > free:
            msg = f"{needed} bytes are needed in {self._cache.directory} and {free} are free above cache.min_free"
            raise OutOfSpaceError(f"{msg}; free some space, or set cache.dir")

    def _make(self, entry: FileEntry, tell: partial[None]) -> bool:
        """Make one plain file; whether it was this process that did."""
        id_ = content_of(entry) or b""
        while not self._tier.make(entry, lambda manifest: self._blocks(manifest, tell)):
            if self._tier.files.holds(id_, entry.size):
                return False
            if not self._tier.files.is_being_written(id_):
                msg = f"no plain file can be made in {self._cache.directory}; the log says why (-v)"
                raise OutOfSpaceError(msg)
            time.sleep(_POLL_S)
        return True

    def _blocks(self, manifest: Manifest, tell: partial[None]) -> Iterator[bytes]:
        done = 0
        for data in contents.read(self._reader, list(manifest.chunks)):
            yield data
            done += len(data)
            tell(done)

    def _far(self, chunks: Iterable[ChunkRef]) -> list[ChunkRef]:
        """Those of some chunks that cannot be read without a network, each once."""
        wanted = {chunk.id: chunk for chunk in chunks}
        near = readable(wanted, self._index, self._cache)
        return [chunk for id_, chunk in wanted.items() if id_ not in near]

    def _bring(self, chunks: Iterable[ChunkRef], what: str, progress: Progress) -> int:
        """Bring chunks into the cache; returns the bytes of those that were on no disk here."""
        far = self._far(chunks)
        total, done, kept = sum(chunk.size for chunk in far), 0, 0
        for data in contents.read(self._reader, far):
            done += len(data)
            progress(done, total, what)
            if done - kept >= _KEPT_BYTES:  # a reader that is faster than the disk leaves chunks out of the cache
                self._reader.settle()
                kept = done
        self._reader.settle()
        self._check_kept(far)
        return total

    def _check_kept(self, chunks: list[ChunkRef]) -> None:
        """Wait until the cache has what came.

        Raises:
            OutOfSpaceError: it could not keep all of it.
        """
        until = time.monotonic() + _KEPT_S
        while lost := self._far(chunks):
            if time.monotonic() > until:
                msg = f"{len(lost)} of {len(chunks)} chunks came and did not stay in the cache"
                raise OutOfSpaceError(f"{msg}; raise cache.size, or free what cache.min_free leaves of its disk")
            time.sleep(_POLL_S)

    def _load(self, entry: FileEntry, progress: Progress, total: int) -> int:
        """Read a plain file, so that the kernel has it; returns its size."""
        id_ = content_of(entry)
        fd = None if id_ is None else self._tier.files.open(id_)
        if fd is None:
            return 0
        room, done = bytearray(_BLOCK), 0
        try:
            while count := os.readv(fd, [room]):
                done += count
                progress(done, total, f"reading {os.fsdecode(entry.name)}")
        finally:
            os.close(fd)
        return done


def _tell(progress: Progress, before: int, total: int, name: str, done: int) -> None:
    progress(before + done, total, name)


def _pinned(cache: Cache) -> dict[bytes, int]:
    try:
        return cache.pins.ids()
    except OSError:
        return {}
