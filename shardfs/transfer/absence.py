"""What of some files is on no disk here, and who has it: told from the indexes of store and cache alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from shardfs.errors import RemoteOfflineError
from shardfs.formats.manifest import Manifest
from shardfs.history import paths
from shardfs.store.cache import Cache
from shardfs.store.index import LOCAL, Index
from shardfs.transfer.facts import readable

_ASKED: Final = 100  # chunks whose places are looked up, each a question to the index


class Absent(NamedTuple):
    """A file that cannot be read without a remote.

    Attributes:
        path: in its commit.
        chunks: distinct chunks of the file.
        missing: of them those that cannot be decoded with what is here.
        missing_bytes: their size.
        places: names of the remotes that have some of them; none when they are known nowhere.
    """

    path: str
    chunks: int
    missing: int
    missing_bytes: int
    places: tuple[str, ...]

    def __str__(self) -> str:
        places = f"they are at {', '.join(self.places)}" if self.places else "no remote is known to have them"
        return (
            f"{self.path}: {self.missing} of {self.chunks} chunks ({self.missing_bytes} bytes) are not here; {places}"
        )


def absent(files: Iterable[tuple[paths.Path, Manifest]], index: Index, cache: Cache | None) -> Iterator[Absent]:
    """Those of some files, given with their chunks, that lack any."""
    for path, manifest in files:
        sizes = {chunk.id: chunk.size for chunk in manifest.chunks}
        missing = sizes.keys() - readable(sizes, index, cache)
        if missing:
            size = sum(sizes[id_] for id_ in missing)
            yield Absent(paths.show(path), len(sizes), len(missing), size, _places(index, list(missing)))


def offline_error(path: bytes, manifest: Manifest, index: Index, cache: Cache | None) -> RemoteOfflineError | None:
    """Why a read of a file failed while no remote may be asked; None when all of it is here."""
    found = next(absent([((path,), manifest)], index, cache), None)
    if found is None:
        return None
    return RemoteOfflineError(f"{found}; `shardfs prefetch REV:{found.path}` while online brings them")


def _places(index: Index, ids: Sequence[bytes]) -> tuple[str, ...]:
    """Remotes that hold some of these chunks, by name. The first few tell: others most often lie beside them."""
    found = {location.place for id_ in ids[:_ASKED] for location in index.find(id_)}
    return tuple(sorted(found - {LOCAL}))
