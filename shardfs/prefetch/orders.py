"""Records of orders, as files in a store directory. Losing them loses nothing. Spec: docs/design/format/order.md."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from shardfs.errors import MalformedError
from shardfs.prefetch.order import MAX_SIZE, Order

_log = logging.getLogger(__name__)

MAX_RECORDS: Final = 1000  # files of a store; the one written longest ago makes room


class Orders:
    """The orders of one store, by path. Safe to share between threads and processes; no method raises."""

    def __init__(self, folder: Path, *, writable: bool) -> None:
        """Keep records in `folder`, which is made when there is one to be kept."""
        self._folder = folder
        self._writable = writable

    def find(self, path: bytes) -> Order | None:
        """The order in which the file at a path was read last."""
        try:
            with self._file(path).open("rb") as file:
                return Order.from_bytes(file.read(MAX_SIZE))
        except (OSError, MalformedError):
            return None

    def keep(self, path: bytes, order: Order) -> bool:
        """Write a record, all at once; whether that was done."""
        data = order.to_bytes()
        if not self._writable or len(data) > MAX_SIZE:
            return False
        target = self._file(path)
        temp = target.with_name(f".{target.name}-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            self._folder.mkdir(exist_ok=True)
            temp.write_bytes(data)
            temp.replace(target)
            self._make_room()
        except OSError as error:
            _log.debug("the order of reads could not be kept: %s", error)
            with suppress(OSError):
                temp.unlink()
            return False
        return True

    def _make_room(self) -> None:
        with os.scandir(self._folder) as found:
            files = sorted((file.stat().st_mtime_ns, file.path) for file in found)
        for _, path in files[: max(0, len(files) - MAX_RECORDS)]:
            with suppress(OSError):
                Path(path).unlink()

    def _file(self, path: bytes) -> Path:
        return self._folder / f"{blake2b(path, digest_size=16).hexdigest()}.json"
