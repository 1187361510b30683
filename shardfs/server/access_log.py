"""The access log: one line of JSON for each request, without anything that lets somebody in."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.errors import StoreError
from shardfs.server.traffic import ADDRESS, ENDPOINT, WHO, Answered

_log = logging.getLogger(__name__)

_MAX_TEXT: Final = 300  # characters of what a client says that are worth keeping


class AccessLog:
    """Appends to a file that only its owner may read, or to the standard output.

    A line that cannot be written is lost: a full disk must not keep anybody from reading models.

    Args:
        path: the file; None for the standard output.

    Raises:
        StoreError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd = self._open()

    def reopen(self) -> None:
        """Go on in a new file of the same name: the old one was renamed. When there can be none, in the old one."""
        if self._path is not None:
            try:
                old, self._fd = self._fd, self._open()
                os.close(old)
            except StoreError as error:
                _log.warning("%s; lines go to the old file", error)

    def close(self) -> None:
        """Write no more."""
        if self._path is not None:
            os.close(self._fd)

    def write(self, answered: Answered) -> None:
        """Add a line."""
        request = answered.request
        line = {
            "time": round(time.time(), 3),
            "address": request.get(ADDRESS, request.remote),
            "who": request.get(WHO),
            "method": request.method[:_MAX_TEXT],
            # Without the query, which no endpoint has: what people put there is what nobody should read.
            "path": request.rel_url.raw_path[:_MAX_TEXT],
            "endpoint": request.get(ENDPOINT),
            "status": answered.status,
            "received": request.content.total_bytes,
            "sent": answered.sent,
            "seconds": round(answered.seconds, 6),
            "range": request.headers.get("Range", "")[:_MAX_TEXT] or None,
            "agent": request.headers.get("User-Agent", "")[:_MAX_TEXT] or None,
        }
        with suppress(OSError):
            os.write(self._fd, json.dumps(line).encode("ascii") + b"\n")

    def _open(self) -> int:
        if self._path is None:
            return sys.stdout.fileno()
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"cannot write the access log {self._path}: {error.strerror}"
            raise StoreError(msg) from error
