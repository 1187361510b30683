"""Download of whole packs into the packs of this store: several ranges on their way at once, in bounded memory.

Ranges are asked for in the order of the packs and written in that order by one thread, so that at most one pack is
unfinished besides what is in memory: that is what a kill loses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from blake3 import blake3

from shardfs.errors import PackCorruptedError, PackNotFoundError, RemoteError, ShardfsError
from shardfs.formats.ids import PackId
from shardfs.formats.ref import PackSize
from shardfs.store import atomic, packs
from shardfs.store.layout import Layout
from shardfs.store.store import Store
from shardfs.transfer.losses import Losses, worst
from shardfs.transfer.parallel import in_order
from shardfs.transfer.scratch import check_room, scratch

_RANGE: Final = 8 << 20  # bytes of one request
_PARALLEL: Final = 8  # requests at once; hides the delay of a link, below what servers object to
_AHEAD: Final = 64 << 20  # bytes that are on their way or wait to be written
_TOGETHER: Final = 32 << 20  # bytes of small packs that become durable together: each time costs a few disk flushes


class PackSource(Protocol):
    """The part of a remote that a download needs; `Remote` says what its method raises."""

    name: str

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of a pack."""
        ...


class _Part(NamedTuple):
    pack: PackSize
    offset: int
    size: int


def download(
    store: Store,
    wanted: Sequence[PackSize],
    sources: Callable[[PackId], Sequence[PackSource]],
    arrived: Callable[[int], None],
) -> Iterator[tuple[PackSize, ShardfsError | None]]:
    """Copy packs here; the payloads in them are verified when they are read, each pack as a whole before it is visible.

    Args:
        store: where to.
        wanted: ids and sizes.
        sources: the remotes that have a pack; the next one is asked when one does not give it, or gives other bytes.
        arrived: told the bytes of each range.

    Yields:
        Each pack once it is durable here, with None; else with the reason why it is not: `PackNotFoundError` when no
        source has it any more, `PackCorruptedError` when what came is not that pack, or the error of its last source.

    Raises:
        RemoteError: no source of a pack can be asked for anything. What came whole before is here.
        OutOfSpaceError: they do not fit on the disk; nothing was asked for.
        LockedError, ReadOnlyError, StoreError: by the disk.
    """
    check_room(store.layout, sum(pack.size for pack in wanted))
    with scratch(store.layout, "fetch") as folder:
        waiting: list[tuple[Path, PackSize]] = []
        try:
            for pack, path in _Download(folder, sources, arrived).run(wanted):
                if not isinstance(path, Path):
                    yield pack, path
                    continue
                waiting.append((path, pack))
                if sum(kept.size for _, kept in waiting) >= _TOGETHER:
                    yield from _adopt(store, waiting)
                    waiting = []
        except RemoteError:
            _adopt(store, waiting)  # what came whole need not come again
            raise
        yield from _adopt(store, waiting)


def _adopt(store: Store, waiting: Sequence[tuple[Path, PackSize]]) -> list[tuple[PackSize, None]]:
    if waiting:
        store.adopt_packs((path, pack.id) for path, pack in waiting)
    return [(pack, None) for _, pack in waiting]


class _Download:
    def __init__(
        self, folder: Layout, sources: Callable[[PackId], Sequence[PackSource]], arrived: Callable[[int], None]
    ) -> None:
        self._folder = folder
        self._sources = sources
        self._arrived = arrived
        self._losses = Losses()  # no more ranges of these are asked for

    def run(self, wanted: Iterable[PackSize]) -> Iterator[tuple[PackSize, Path | ShardfsError]]:
        """Packs as files in the folder, whole and durable; else why not."""
        todo = list(wanted)
        parts = [part for pack in todo for part in _parts(pack)]
        with closing(in_order(self._block, parts, threads=_PARALLEL, ahead=_AHEAD, size=lambda p: p.size)) as blocks:
            for pack in todo:
                is_good = self._write(pack, (next(blocks) for _ in _parts(pack)))
                if not is_good and pack.id not in self._losses.errors:
                    self._again(pack)
                yield pack, self._losses.errors.get(pack.id) or self._folder.pack(pack.id)

    def _block(self, part: _Part) -> bytes | None:
        """One range; None when it cannot be had, for a reason that is remembered."""
        if part.pack.id in self._losses.errors:
            return None
        failures: list[ShardfsError] = []
        for source in self._sources(part.pack.id):
            try:
                with self._losses.patience():
                    return source.read_pack(part.pack.id, part.offset, part.size)
            except (RemoteError, PackNotFoundError) as error:
                failures.append(error)
        nobody = PackNotFoundError(f"no remote has pack {part.pack.id.hex()[:12]} any more")
        self._losses.note(part.pack.id, worst(failures) or nobody)
        return None

    def _write(self, pack: PackSize, blocks: Iterable[bytes | None]) -> bool:
        """Write the blocks of a pack to its file, durably; whether they are that pack."""
        path, hasher = self._folder.pack(pack.id), blake3()
        with atomic.writing(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for block in blocks:
                    if block is not None:
                        hasher.update(block)
                        file.write(block)
                        self._arrived(len(block))
                file.flush()
                os.fsync(file.fileno())
            path.stat()  # a gc that leaves nothing unfinished alone is no fault of a remote
        return hasher.digest() == pack.id and _has_table(path)

    def _again(self, pack: PackSize) -> None:
        """A pack that came with other bytes, once more from each of its sources alone."""
        for source in self._sources(pack.id):
            blocks = (source.read_pack(pack.id, part.offset, part.size) for part in _parts(pack))
            with suppress(RemoteError, PackNotFoundError):
                if self._write(pack, blocks):
                    return
        names = ", ".join(source.name for source in self._sources(pack.id))
        msg = f"pack {pack.id.hex()[:12]} of {names} has other bytes than its id says"
        self._losses.note(pack.id, PackCorruptedError(msg))


def _parts(pack: PackSize) -> list[_Part]:
    return [_Part(pack, offset, min(_RANGE, pack.size - offset)) for offset in range(0, pack.size, _RANGE)]


def _has_table(path: Path) -> bool:
    try:
        packs.read_table(path)
    except PackCorruptedError:
        return False
    return True
