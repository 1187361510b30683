"""Download of one whole pack, in several ranges at once, into the packs of this store."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from blake3 import blake3

from shardfs.errors import PackCorruptedError, RemoteProtocolError
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import Remote
from shardfs.store import atomic, packs
from shardfs.store.packs import FinishedPack
from shardfs.store.store import Store
from shardfs.transfer.scratch import scratch

_RANGE: Final = 8 << 20  # bytes of one request
_PARALLEL: Final = 4  # requests at once: 32 MiB in memory


def download(store: Store, remote: Remote, pack: PackSize, arrived: Callable[[int], None]) -> FinishedPack:
    """Copy a pack here; the payloads in it are verified when they are read, the pack as a whole now.

    Args:
        store: where to.
        remote: where from.
        pack: id and size.
        arrived: told the bytes of each range.

    Raises:
        RemoteProtocolError: what came is not that pack. PackNotFoundError: it is gone at the remote.
        RemoteError: by the remote. LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    with scratch(store.layout, "fetch") as folder:
        path = folder.pack(pack.id)
        with atomic.os_errors(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        _receive(remote, pack, path, arrived)
        try:
            packs.read_table(path)
        except PackCorruptedError as error:
            msg = f"{remote.url}: {error}"
            raise RemoteProtocolError(msg) from error
        return store.adopt_pack(path, pack.id)


def _receive(remote: Remote, pack: PackSize, path: Path, arrived: Callable[[int], None]) -> None:
    hasher = blake3()
    with atomic.os_errors(f"cannot write {path}"), path.open("xb") as file:
        for block in _blocks(remote, pack):
            hasher.update(block)
            file.write(block)
            arrived(len(block))
        file.flush()
        os.fsync(file.fileno())
    if hasher.digest() != pack.id:
        msg = f"pack {pack.id.hex()[:12]} of {remote.url} has other bytes than its id says"
        raise RemoteProtocolError(msg)


def _blocks(remote: Remote, pack: PackSize) -> Iterator[bytes]:
    """The pack in order; a few ranges are on their way while one is used."""
    offsets = iter(range(0, pack.size, _RANGE))
    running: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_PARALLEL, "shardfs-download") as pool:
        try:
            while True:
                while len(running) < _PARALLEL and (offset := next(offsets, None)) is not None:
                    size = min(_RANGE, pack.size - offset)
                    running.append(pool.submit(remote.read_pack, pack.id, offset, size))
                if not running:
                    return
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
