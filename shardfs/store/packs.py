"""Pack files on disk: write, read ranges, read the table. Spec: docs/design/format/pack.md."""

from __future__ import annotations

import io
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from shardfs.errors import FormatError, MalformedError, PackCorruptedError
from shardfs.formats import pack as format_
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import HEADER, TRAILER_SIZE, Entry
from shardfs.store import atomic
from shardfs.store.layout import Layout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TARGET_SIZE: Final = 64 << 20  # bytes; a pack is closed once it is this large
# ... or holds this many payloads: tiny files would else break the format's limit of 2**20 entries long before the
# size is reached, and cost 400 bytes of memory each until then.
TARGET_ENTRIES: Final = 1 << 16
_BLOCK_SIZE: Final = 1 << 20  # bytes that are written and hashed at once


@dataclass(frozen=True, slots=True)
class FinishedPack:
    """A pack that is durable under its final name."""

    id: PackId
    size: int
    entries: tuple[Entry, ...]

    def indexed(self) -> set[Entry]:
        """What an index holds of this pack: of an id that is in it twice the first entry."""
        return set({entry.id: entry for entry in reversed(self.entries)}.values())


class _HashedFile(io.FileIO):
    """A new file that hashes what is written to it: BLAKE3 takes 1 MiB at once five times as fast as 10 KB."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb")
        self.hasher = blake3()

    def write(self, data: ReadableBuffer) -> int:
        written = super().write(data)
        self.hasher.update(memoryview(data)[:written])
        return written


class PackWriter:
    """One pack being written. Not thread-safe. End with `finish` or `abort`.

    Chunks go to disk as they come; objects are kept in memory and written after the chunks, next to the table, so
    that a remote reader gets all metadata of a pack with one range request from its end.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._entries: list[Entry] = []
        self._objects: list[tuple[Entry, bytes]] = []
        self._objects_size = 0
        self._size = 0
        self._guard = threading.Lock()  # held while the file moves to its final name
        with atomic.writing(f"cannot write a pack in {layout.root}"):
            self._path = atomic.temp_name(layout.tmp)
            self._hashed = _HashedFile(self._path)
            self._file = io.BufferedWriter(self._hashed, _BLOCK_SIZE)
            try:
                self._write(HEADER)
            except BaseException:
                self.abort()
                raise

    @property
    def is_full(self) -> bool:
        """Whether the next payload belongs into another pack."""
        count = len(self._entries) + len(self._objects)
        return self._size + self._objects_size >= TARGET_SIZE or count >= TARGET_ENTRIES

    def add(
        self,
        kind: Kind,
        id_: bytes,
        codec: int,
        payload: bytes | memoryview,
        raw_size: int,
        bases: tuple[bytes, ...],
    ) -> Entry:
        """Append one payload; returns its entry, whose offset is final for chunks only.

        Raises:
            OutOfSpaceError, ReadOnlyError, StoreError: the pack must be aborted. MalformedError: sizes that a pack
                cannot hold; nothing was appended.
        """
        entry = Entry(id_, kind, codec, self._size, len(payload), raw_size, bases)
        if not entry.stored_size <= raw_size <= format_.max_raw_size(kind):
            msg = f"{kind.name.lower()} of {raw_size} bytes, stored as {entry.stored_size}, is out of limits"
            raise MalformedError(msg)  # no reader would take the pack
        if kind is Kind.CHUNK:
            self._entries.append(entry)
            try:  # a context manager for every payload takes longer than writing 10 KB
                self._write(payload)
            except OSError:
                with atomic.writing(f"cannot write a pack in {self._layout.root}"):
                    raise
        else:
            self._objects.append((entry, bytes(payload)))
            self._objects_size += len(payload)
        return entry

    def read(self, entry: Entry) -> bytes:
        """The payload of a chunk that was added, before `finish` or after it. Any thread may ask.

        Raises:
            PackCorruptedError: the file cannot be read.
        """
        with self._guard:
            if not self._file.closed:
                try:
                    self._file.flush()
                except (OSError, ValueError) as error:  # the latter: another thread has given the pack up
                    msg = f"a pack that is being written cannot be read: {error}"
                    raise PackCorruptedError(msg) from error
            return read_payload(self._path, entry)

    def finish(self) -> FinishedPack:
        """Make the pack durable under its id.

        Raises:
            OutOfSpaceError, ReadOnlyError, StoreError: the pack was aborted.
        """
        try:
            with atomic.writing(f"cannot write a pack in {self._layout.root}"):
                for entry, payload in self._objects:
                    self._entries.append(entry._replace(offset=self._size))
                    self._write(payload)
                self._objects.clear()
                self._write(format_.tail_to_bytes(self._entries, self._size))
                self._file.flush()
                os.fsync(self._file.fileno())
                pack_id = PackId(self._hashed.hasher.digest())
                with self._guard:
                    self._file.close()
                    atomic.publish(self._path, self._layout.pack(pack_id))
                    self._path = self._layout.pack(pack_id)
        except BaseException:
            self.abort()
            raise
        return FinishedPack(pack_id, self._size, tuple(self._entries))

    def abort(self) -> None:
        """Forget the pack; leaves nothing behind."""
        with suppress(OSError):
            self._hashed.close()  # not the buffer, which would write what it holds
        with suppress(OSError):
            self._path.unlink()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._size += len(data)


def read_payload(path: Path, entry: Entry) -> bytes:
    """The stored bytes of one entry, not yet decoded or verified.

    Raises:
        PackCorruptedError: the file is missing, unreadable or ends early.
    """
    if type(entry.stored_size) is not int or not 0 <= entry.stored_size <= format_.max_raw_size(entry.kind):
        msg = f"pack {path.stem[:12]} cannot hold a payload of {entry.stored_size!r} bytes"
        raise PackCorruptedError(msg)  # a flipped bit in the index; allocate nothing by it
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, entry.stored_size, entry.offset)
        finally:
            os.close(fd)
    except (OSError, OverflowError, TypeError) as error:  # the latter: offsets that only a damaged index has
        msg = f"pack {path.stem[:12]} cannot be read: {getattr(error, 'strerror', error)}"
        raise PackCorruptedError(msg) from error
    if len(data) != entry.stored_size:
        msg = f"pack {path.stem[:12]} ends early"
        raise PackCorruptedError(msg)
    return data


def read_table(path: Path) -> FinishedPack:
    """The entries of a pack file, by its own table. The payloads and the pack id are not verified.

    Raises:
        PackCorruptedError: missing, truncated, empty or damaged.
    """
    name = path.stem[:12]
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            format_.parse_header(file.read(len(HEADER)))
            file.seek(max(0, size - TRAILER_SIZE))
            trailer = format_.parse_trailer(file.read(TRAILER_SIZE), size)
            file.seek(trailer.table_offset)
            entries = format_.parse_table(file.read(trailer.table_size), trailer)
            pack_id = PackId(bytes.fromhex(path.stem))
    except OSError as error:
        msg = f"pack {name} cannot be read: {error.strerror}"
        raise PackCorruptedError(msg) from error
    except (FormatError, ValueError) as error:
        msg = f"pack {name} is damaged: {error}"
        raise PackCorruptedError(msg) from error
    return FinishedPack(pack_id, size, tuple(entries))


def read_tables(layout: Layout) -> tuple[dict[PackId, FinishedPack], dict[PackId, PackCorruptedError]]:
    """The tables of all pack files, by `read_table`, and what is wrong with those that have none."""
    tables: dict[PackId, FinishedPack] = {}
    unreadable: dict[PackId, PackCorruptedError] = {}
    for pack_id in list_packs(layout):
        try:
            tables[pack_id] = read_table(layout.pack(pack_id))
        except PackCorruptedError as error:
            unreadable[pack_id] = error
    return tables, unreadable


def hash_file(path: Path) -> PackId:
    """The id that the content of a pack file has.

    Raises:
        PackCorruptedError: the file cannot be read.
    """
    hasher = blake3()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    except OSError as error:
        msg = f"pack {path.stem[:12]} cannot be read: {error.strerror}"
        raise PackCorruptedError(msg) from error
    return PackId(hasher.digest())


def list_packs(layout: Layout) -> dict[PackId, int]:
    """Pack files that are there, with their sizes in bytes."""
    found: dict[PackId, int] = {}
    if not layout.packs.is_dir():
        return found
    for folder in sorted(layout.packs.iterdir()):
        if folder.is_dir():
            for path in sorted(folder.glob("*.pack")):
                with suppress(ValueError, FileNotFoundError):
                    pack_id = PackId(bytes.fromhex(path.stem))
                    if len(pack_id) == 32 and layout.pack(pack_id) == path:
                        found[pack_id] = path.stat().st_size
    return found
