"""Bodies of answers: never longer than expected, never another range, never coded."""

from __future__ import annotations

import http.client
from typing import Final

from shardfs.errors import MalformedError
from shardfs.formats import wire

MAX_ERROR: Final = 64 << 10  # bytes of an error body that are read
_MAX_SKIPPED: Final = 8 << 20  # bytes read and thrown away when a server ignores Range


class BodyReader:
    """Reads an answer's body of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body.

        Raises:
            MalformedError: longer than the limit; not read.
            http.client.IncompleteRead: it ended early.
        """
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            msg = f"content coding {coding[:40]!r}, which was not asked for"
            raise MalformedError(msg)
        if response.status >= 300:
            return _read_error(response)
        return self.read_success(response)

    def read_success(self, response: http.client.HTTPResponse) -> bytes:
        """The body of an answer below 300."""
        return _read_bounded(response, self._limit)


class RangeReader(BodyReader):
    """Reads exactly one range."""

    def __init__(self, offset: int, length: int) -> None:
        super().__init__(length)
        self._offset = offset
        self._length = length

    def read_success(self, response: http.client.HTTPResponse) -> bytes:
        """The range, whether the server sent it alone or the whole file."""
        if response.status == 206:
            offset, length, _ = wire.parse_content_range(response.headers.get("Content-Range", ""))
            if (offset, length) != (self._offset, self._length):
                msg = f"bytes {offset}+{length} instead of {self._offset}+{self._length}"
                raise MalformedError(msg)
            body = _read_bounded(response, self._length)
        else:
            body = self._cut_out(response)
        if len(body) != self._length:
            msg = f"{len(body)} bytes instead of {self._length}"
            raise MalformedError(msg)
        return body

    def _cut_out(self, response: http.client.HTTPResponse) -> bytes:
        """The range out of a whole file: fine at the start of a pack, a waste that is refused further on."""
        if self._offset > _MAX_SKIPPED:
            msg = "the server ignores Range; it cannot serve packs"
            raise MalformedError(msg)
        skipped = response.read(self._offset)
        return response.read(self._length) if len(skipped) == self._offset else b""


def _read_bounded(response: http.client.HTTPResponse, limit: int) -> bytes:
    if response.length is not None:
        if response.length > limit:
            msg = f"a body of {response.length} bytes where at most {limit} are expected"
            raise MalformedError(msg)
        expected = response.length
        body = response.read(expected)
        if len(body) != expected:
            raise http.client.IncompleteRead(body, expected - len(body))
        if expected == 0:
            response.read()
        return body
    body = response.read(limit + 1)
    if len(body) > limit:
        msg = f"a body of more than {limit} bytes"
        raise MalformedError(msg)
    return body


def _read_error(response: http.client.HTTPResponse) -> bytes:
    """As much of an error's body as is worth showing."""
    try:
        return response.read(MAX_ERROR)
    except (OSError, http.client.HTTPException):
        return b""
