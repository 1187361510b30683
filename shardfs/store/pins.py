"""Pins: which plain files of the cache must stay. One small file each, beside what they protect.

Spec: docs/design/format/cache.md, "Pins". They are no part of the index: a damaged index is thrown away, and what a
user asked to keep is still known then.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from blake3 import blake3

from shardfs.errors import MalformedError
from shardfs.formats.ids import CommitId, from_hex

_FOLDER: Final = "pins"


@dataclass(frozen=True, slots=True)
class Pin:
    """Files of one revision that stay in the cache.

    Attributes:
        repository: the store directory, or the URL of a view of a remote.
        revision: as the user named it.
        path: below its root, with "/" between names; empty for all of it.
        commit: what the revision named then.
        files: size in bytes by id of the content.
    """

    repository: str
    revision: str
    path: str
    commit: CommitId
    files: dict[bytes, int]

    @property
    def name(self) -> str:
        """As the user writes it: "v1" or "v1:weights"."""
        return f"{self.revision}:{self.path}" if self.path else self.revision

    @property
    def size(self) -> int:
        """Bytes of its distinct files."""
        return sum(self.files.values())


_Stamps = dict[Path, tuple[int, int, int]]  # inode, bytes and time of change of each file


class _Found(NamedTuple):
    """What was read when the files were these."""

    stamps: _Stamps
    pins: list[Pin]
    ids: dict[bytes, int]


class Pins:
    """The pins of one cache directory. Any process may add and remove them at any time.

    Safe to share between threads. Files that did not change are not read again.
    """

    def __init__(self, cache_directory: Path) -> None:
        self._folder = cache_directory / _FOLDER
        self._found = _Found({}, [], {})

    def all(self) -> list[Pin]:
        """All pins, by repository and name; files that hold none are left out.

        Raises:
            OSError: the folder cannot be read.
        """
        return list(self._current().pins)

    def ids(self) -> dict[bytes, int]:
        """Size by id of all files that are pinned; OSError as `all`."""
        return dict(self._current().ids)

    def add(self, pin: Pin) -> None:
        """Remember a pin, durably; one of the same name in the same repository is replaced.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(pin)
        temp = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                json.dump(_to_json(pin), file)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(path)
        except BaseException:
            with suppress(OSError):
                temp.unlink()
            raise

    def remove(self, pin: Pin) -> None:
        """Forget a pin; it need not be there.

        Raises:
            OSError: its file is there and cannot be removed.
        """
        self._path(pin).unlink(missing_ok=True)

    def _current(self) -> _Found:
        stamps = self._stamps()
        found = self._found
        if found.stamps != stamps:
            pins = []
            for path in stamps:
                with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
                    pins.append(_from_json(json.loads(path.read_text("utf-8"))))
            pins.sort(key=lambda pin: (pin.repository, pin.revision, pin.path))
            ids = {id_: size for pin in pins for id_, size in pin.files.items()}
            self._found = found = _Found(stamps, pins, ids)
        return found

    def _stamps(self) -> _Stamps:
        stamps = {}
        with suppress(FileNotFoundError), os.scandir(self._folder) as files:
            for file in files:
                if file.name.endswith(".json"):
                    with suppress(FileNotFoundError):
                        status = file.stat()
                        stamps[Path(file)] = status.st_ino, status.st_size, status.st_mtime_ns
        return stamps

    def _path(self, pin: Pin) -> Path:
        name = "\0".join((pin.repository, pin.revision, pin.path))
        return self._folder / f"{blake3(name.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def _to_json(pin: Pin) -> dict[str, Any]:
    return {
        "repository": pin.repository,
        "revision": pin.revision,
        "path": pin.path,
        "commit": pin.commit.hex(),
        "files": {id_.hex(): size for id_, size in pin.files.items()},
    }


def _from_json(value: dict[str, Any]) -> Pin:
    repository, revision, path = texts = [value[key] for key in ("repository", "revision", "path")]
    if not all(isinstance(text, str) for text in texts):
        msg = "a pin has wrong types"
        raise MalformedError(msg)
    files = {from_hex(id_): int(size) for id_, size in value["files"].items()}
    return Pin(repository, revision, path, CommitId(from_hex(value["commit"])), files)
