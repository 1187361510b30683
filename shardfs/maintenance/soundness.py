"""Whether a certain copy of a payload, in a certain pack, is sound."""

from __future__ import annotations

from shardfs.codecs.registry import Encoded
from shardfs.errors import ChunkNotFoundError, FormatError, IntegrityError, NotFoundError, PackCorruptedError
from shardfs.formats.ids import ChunkId, Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.store import copies, packs
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader


class Soundness:
    """Reads copies from packs of one store and verifies them; never looks at other copies of the same id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reader = Reader(store, budget_bytes=64 << 20)  # for the bases of deltas

    def read(self, pack: PackId, entry: Entry) -> Encoded:
        """The stored payload, after it was decoded and compared with its id.

        Raises:
            PackCorruptedError: it is damaged. ChunkNotFoundError, ChunkCorruptedError: its base cannot be read.
        """
        return self.check(entry, packs.read_payload(self._store.layout.pack(pack), entry))

    def check(self, entry: Entry, payload: bytes) -> Encoded:
        """The same for a payload that was read already."""
        encoded = Encoded(entry.codec, payload, entry.bases)
        try:
            if reason := copies.describes(entry, entry.kind, None):
                raise PackCorruptedError(reason)
            copies.decode(entry.kind, entry.id, encoded, entry.raw_size, self._base)
        except FormatError as error:
            raise PackCorruptedError(str(error)) from error
        return encoded

    def is_sound(self, pack: PackId, entry: Entry) -> bool:
        """Whether `read` succeeds."""
        try:
            self.read(pack, entry)
        except (IntegrityError, NotFoundError):
            return False
        return True

    def _base(self, id_: bytes) -> bytes:
        location = self._store.index.find_many([id_]).get(id_)
        if location is None or location.entry.kind is not Kind.CHUNK:
            msg = f"base {id_.hex()[:12]} is in no pack"
            raise ChunkNotFoundError(msg)
        return self._reader.chunk(ChunkId(id_), location.entry.raw_size)
