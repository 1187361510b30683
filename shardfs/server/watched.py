"""A file of settings that may change while the server runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from shardfs.errors import ShardfsError, StoreError

CHECK_S: Final = 0.5  # between two looks at the file: a revoked token opens nothing a second later

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Watched(Generic[_T]):
    """What a file holds. A file that turns bad is reported once and changes nothing.

    Args:
        path: the file; it need not exist.
        parse: makes the value of its bytes.
        missing: the value when there is no file.

    Raises:
        ShardfsError: of `parse`; or StoreError: the file cannot be read.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], _T], missing: _T) -> None:
        self._path = path
        self._parse = parse
        self._missing = missing
        self._seen = self._signature()
        self._checked = time.monotonic()
        self._value = self._load()

    def get(self) -> _T:
        """The value, as the file was at most `CHECK_S` seconds ago."""
        now = time.monotonic()
        if now - self._checked >= CHECK_S:
            self._checked = now
            seen = self._signature()  # before reading: what is written meanwhile is seen the next time
            if seen != self._seen:
                self._seen = seen
                try:
                    self._value = self._load()
                except ShardfsError as error:
                    _log.warning("%s; what it said before stays in force", error)
        return self._value

    def _signature(self) -> object:
        try:
            found = self._path.stat()
        except OSError as error:
            return error.errno
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _load(self) -> _T:
        try:
            data = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return self._missing
        except OSError as error:
            msg = f"{self._path} cannot be read: {error.strerror}"
            raise StoreError(msg) from error
        try:
            return self._parse(data)
        except ShardfsError as error:
            raise type(error)(f"{self._path}: {error}") from error
