"""Upload of one pack over HTTP, which goes on where it broke. Spec: docs/reference/http-api.md, Packs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from shardfs.errors import RemoteTimeoutError, RemoteUnavailableError, StoreError
from shardfs.formats import wire
from shardfs.formats.ids import PackId, pack_path
from shardfs.remotes import meter
from shardfs.remotes.answers import BodyReader
from shardfs.remotes.exchange import Answer, Request

_MAX_ANSWER: Final = 64 << 10  # bytes
_UNFIT: Final = (400, 416)  # what was there is not the beginning of this pack, or is gone

Ask = Callable[[Request], Answer]


def upload(ask: Ask, path: Path, pack_id: PackId) -> Answer | None:
    """Send a pack; goes on by itself as long as each broken connection brought some of it.

    Args:
        ask: sends a request.
        path: the pack.
        pack_id: its id.

    Returns:
        The last answer; None when the server had the pack already.

    Raises:
        StoreError: the file cannot be read. RemoteError: no complete HTTP answer.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        msg = f"pack {path} cannot be read: {error.strerror}"
        raise StoreError(msg) from error
    with file:
        return _Upload(ask, file, pack_id).run()


class _Upload:
    def __init__(self, ask: Ask, file: BinaryIO, pack_id: PackId) -> None:
        self._ask = ask
        self._file = file
        self._pack_id = pack_id
        self._size = file.seek(0, os.SEEK_END)

    def run(self) -> Answer | None:
        there = self._there()
        may_begin_anew = True
        while there is not None:
            try:
                answer = self._ask(self._rest(there))
            except (RemoteUnavailableError, RemoteTimeoutError):
                before, there = there, self._there()
                if there is not None and there <= before:
                    raise
                continue
            if not there or answer.status not in _UNFIT or not may_begin_anew:
                return answer
            there, may_begin_anew = 0, False
        return None

    def _there(self) -> int | None:
        """How many bytes the server has; None: the whole pack. A server that says anything odd has none."""
        answer = self._ask(Request("HEAD", pack_path(self._pack_id), {}, None, BodyReader(_MAX_ANSWER)))
        if answer.status == 200 and answer.headers.get("Content-Length") == str(self._size):
            return None
        text = answer.headers.get("Upload-Offset", "")
        offset = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
        return offset if offset <= self._size else 0

    def _rest(self, offset: int) -> Request:
        headers = {"Content-Range": wire.rest_of(offset, self._size)} if offset else {}
        target = f"packs/{self._pack_id.hex()}"
        meter.tell(offset)
        return Request("PUT", target, headers, self._file, BodyReader(_MAX_ANSWER), offset, meter.tell)
