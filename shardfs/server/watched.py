"""A file of settings that may change while the server runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from shardfs.errors import ShardfsError, StoreError

CHECK_S: Final = 0.4  # between two looks at the file: a change counts after one, by hand after two, within a second

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Watched(Generic[_T]):
    """What a file holds. A file that turns bad is reported once and changes nothing.

    Args:
        path: the file; it need not exist.
        parse: makes the value of its bytes.
        missing: the value when there is no file.
        by_hand: people write it, with editors that may empty or delete it for a moment before they fill it. So it is
            read once nobody has written to it for `CHECK_S`, and a file that is gone says what it said last.

    Raises:
        ShardfsError: of `parse`; or StoreError: the file cannot be read.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], _T], missing: _T, *, by_hand: bool = False) -> None:
        self._path = path
        self._parse = parse
        self._missing = missing
        self._by_hand = by_hand
        self._seen = self._read = self._signature()
        self._checked = time.monotonic()
        self._value = self._load()

    def get(self) -> _T:
        """The value, as the file was not long ago."""
        now = time.monotonic()
        if now - self._checked >= CHECK_S:
            self._checked = now
            before, self._seen = self._seen, self._signature()
            if self._seen != self._read and (self._seen == before or self._is_done()):
                self._read = self._seen  # what is written from here on looks different the next time
                self._load_again()
        return self._value

    def _is_done(self) -> bool:
        """Whether nobody is in the middle of writing the file; where clocks differ, `get` looks twice."""
        if not self._by_hand:
            return True
        try:
            return time.time() - self._path.stat().st_mtime >= CHECK_S
        except OSError:
            return False

    def _load_again(self) -> None:
        try:
            if self._by_hand and not self._path.exists():
                msg = f"{self._path} is gone; write an empty one if you mean it"
                raise StoreError(msg)
            self._value = self._load()
        except ShardfsError as error:
            _log.warning("%s; what it said before stays in force", error)

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
