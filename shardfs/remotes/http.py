"""A repository on a web server: ours, or any that serves a folder. Spec: docs/reference/http-api.md.

Reading needs GET and Range only. Nothing that the server says is believed: lengths are compared, bodies are bounded,
redirects and content codings are refused.
"""

from __future__ import annotations

import http.client
import io
import os
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from shardfs.errors import (
    FormatError,
    MalformedError,
    PackNotFoundError,
    RefChangedError,
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
    RepositoryNotFoundError,
    StoreError,
    UsageError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats import wire
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import RemoteRefs
from shardfs.remotes.connection import Connection, Pool, Timeouts

_MAX_LISTING: Final = 64 << 20  # bytes; 600 000 packs
_MAX_ERROR: Final = 64 << 10  # bytes of an error body that are read
_MAX_SKIPPED: Final = 8 << 20  # bytes read and thrown away when a server ignores Range
_MAX_RETRY_AFTER_S: Final = 3600.0
_READ_SIZE: Final = 1 << 20
_DENIED: Final = "does not accept changes"

_T = TypeVar("_T")


class _Answer(NamedTuple):
    """Status, headers and a body that is complete."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class HttpRemote:
    """A remote by http:// or https:// URL. One attempt per call; see `RetryingRemote`.

    Args:
        url: of the repository; user and password in it are sent as basic authentication and shown nowhere.
        name: how the user calls it.
        timeouts: limits of each attempt.

    Raises:
        UsageError: not such a URL.
    """

    knows_ids = True  # a server that hands out files alone refuses `has`, as it refuses packs

    def __init__(self, url: str, *, name: str = "origin", timeouts: Timeouts | None = None) -> None:
        parts = _checked_url(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        shown = f"[{host}]" if ":" in host else host
        self.name = name
        self._path = quote(unquote(parts.path).rstrip("/"), safe="/~")
        self.url = f"{parts.scheme}://{shown}{f':{parts.port}' if parts.port else ''}{self._path}"
        self._headers = {"User-Agent": "shardfs"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode("ascii")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._pool = Pool(host, port, tls, timeouts or Timeouts())

    def refs(self) -> RemoteRefs:
        """See `Remote.refs`."""
        return RemoteRefs(*self._listing("info/refs", ref_format.refs_from_bytes))

    def list_packs(self) -> list[PackSize]:
        """See `Remote.list_packs`."""
        return self._listing("info/packs", ref_format.packs_from_bytes)

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        if length == 0:
            return b""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer = self._ask("GET", _pack_path(pack_id), headers=headers, reader=_RangeReader(offset, length))
        if answer.status in (404, 410):
            msg = f"{self.url} has no pack {pack_id.hex()[:12]}"
            raise PackNotFoundError(msg)
        self._expect(answer, 206, 200)
        return answer.body

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """See `Remote.has`."""
        flags: list[bool] = []
        for start in range(0, len(ids), wire.MAX_HAS_IDS):
            part = ids[start : start + wire.MAX_HAS_IDS]
            answer = self._ask("POST", "has", body=wire.ids_to_bytes(part), reader=_BodyReader(len(part)))
            self._expect_repository(answer)
            self._expect(answer, 200)
            parse = partial(wire.flags_from_bytes, count=len(part))
            flags += self._parsed("has", parse, answer.body)
        return flags

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`.

        Raises:
            StoreError: the local file cannot be read.
        """
        if self._ask("HEAD", _pack_path(pack_id)).status == 200:
            return
        try:
            with path.open("rb") as file:
                answer = self._ask("PUT", f"packs/{pack_id.hex()}", file=file)
        except FileNotFoundError as error:
            msg = f"pack {path} is not there any more"
            raise StoreError(msg) from error
        self._expect(answer, 200, 201, 204)

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`. A ref that is at `new` already counts as moved."""
        headers = {"If-None-Match": "*"} if old is None else {"If-Match": wire.entity_tag(old)}
        target = quote(ref_format.check_ref_name(name), safe="/")
        if new is None:
            answer = self._ask("DELETE", target, headers=headers)
        else:
            answer = self._ask("PUT", target, headers=headers, body=ref_format.ref_to_bytes(new))
        if answer.status == 412:
            current = self._parsed(target, wire.current_from_bytes, answer.body)
            if current == new:
                return
            msg = f"{name} on {self.url} moved to {current.hex()[:12] if current else 'nothing'}"
            raise RefChangedError(msg, current)
        self._expect_repository(answer)
        self._expect(answer, 200, 201, 204)

    def close(self) -> None:
        """See `Remote.close`."""
        self._pool.close()

    # Requests

    def _listing(self, target: str, parse: Callable[[bytes], _T]) -> _T:
        answer = self._ask("GET", target, reader=_BodyReader(_MAX_LISTING))
        self._expect_repository(answer)
        self._expect(answer, 200)
        return self._parsed(target, parse, answer.body)

    def _parsed(self, target: str, parse: Callable[[bytes], _T], body: bytes) -> _T:
        try:
            return parse(body)
        except FormatError as error:
            msg = f"{self.url}/{target}: {error}"
            raise RemoteProtocolError(msg) from error

    def _ask(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        file: BinaryIO | None = None,
        reader: _BodyReader | None = None,
    ) -> _Answer:
        """One request and its complete answer, on an idle connection or a new one.

        A server may close an idle connection at the very moment it is used again; that is no failure of the server,
        so the request is repeated once on a fresh connection. All requests are safe to repeat.

        Raises:
            RemoteError: no complete HTTP answer.
        """
        request = _Request(
            method,
            f"{self._path}/{target}",
            {**self._headers, **(headers or {})},
            io.BytesIO(body) if body is not None else file,
            reader or _BodyReader(_MAX_ERROR),
        )
        where = f"{method} {self.url}/{target}"
        connection = self._pool.take()
        try:
            return self._exchange(connection, request)
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            if not connection.used:
                raise _remote_error(where, error, reached=connection.reached) from error
        except (OSError, http.client.HTTPException, FormatError) as error:
            raise _remote_error(where, error, reached=connection.reached) from error
        connection = self._pool.take(fresh=True)
        try:
            return self._exchange(connection, request)
        except (OSError, http.client.HTTPException, FormatError) as error:
            raise _remote_error(where, error, reached=connection.reached) from error

    def _exchange(self, connection: Connection, request: _Request) -> _Answer:
        done = False
        try:
            request.send(connection)
            with connection.answer() as response:
                body = request.read(response)
                done = response.isclosed() and not response.will_close
                answer = _Answer(response.status, response.headers, body)
        finally:
            if done:
                self._pool.give(connection)
            else:
                connection.close()
        return answer

    # Judging answers

    def _expect_repository(self, answer: _Answer) -> None:
        if answer.status in (404, 410):
            msg = f"no repository at {self.url}"
            raise RepositoryNotFoundError(msg)

    def _expect(self, answer: _Answer, *statuses: int) -> None:
        status = answer.status
        if status in statuses:
            return
        said = wire.error_from_bytes(answer.body) or http.client.responses.get(status, "")
        msg = f"{self.url} answered {status}: {said}"
        if status in (408, 425, 429) or (500 <= status < 600 and status not in (501, 505, 507)):
            raise RemoteUnavailableError(msg, _retry_after_s(answer.headers))
        if 300 <= status < 400:
            place = str(answer.headers.get("Location"))[:200]
            msg = f"{self.url} redirects to {place!a}; use the final address as the URL of the remote"
            raise RemoteProtocolError(msg)
        if status in (404, 405, 501):
            raise RemoteDeniedError(f"{self.url} {_DENIED} ({status}: {said})")
        if 400 <= status < 600 and status not in (416, 505):
            raise RemoteDeniedError(msg)
        raise RemoteProtocolError(msg)


class _BodyReader:
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


class _RangeReader(_BodyReader):
    """Reads exactly one range."""

    def __init__(self, offset: int, length: int) -> None:
        super().__init__(length)
        self._offset = offset
        self._length = length

    def read_success(self, response: http.client.HTTPResponse) -> bytes:
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


class _Request(NamedTuple):
    method: str
    target: str
    headers: Mapping[str, str]
    body: BinaryIO | io.BytesIO | None
    reader: _BodyReader

    def send(self, connection: Connection) -> None:
        """Send head and body.

        A server that refuses early closes while the body is still coming; its answer is then waiting, so a broken
        pipe is not an error yet.
        """
        connection.putrequest(self.method, self.target, skip_accept_encoding=True)
        connection.putheader("Accept-Encoding", "identity")
        for key, value in self.headers.items():
            connection.putheader(key, value)
        if self.body is None:
            connection.endheaders()
            return
        size = self.body.seek(0, os.SEEK_END)
        self.body.seek(0)
        connection.putheader("Content-Length", str(size))
        connection.putheader("Content-Type", "application/octet-stream")
        connection.endheaders()
        try:
            for block in _blocks(self.body):
                connection.send(block)
        except (BrokenPipeError, ConnectionResetError):
            if connection.used:
                raise

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """The body of the answer; none for HEAD."""
        return response.read() if self.method == "HEAD" else self.reader.read(response)


def _blocks(body: BinaryIO | io.BytesIO) -> Iterator[bytes]:
    while True:
        try:
            block = body.read(_READ_SIZE)
        except OSError as error:
            msg = f"cannot read what is to be sent: {error.strerror}"
            raise StoreError(msg) from error
        if not block:
            return
        yield block


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
        return response.read(_MAX_ERROR)
    except (OSError, http.client.HTTPException):
        return b""


def _remote_error(where: str, error: Exception, *, reached: bool) -> RemoteError:
    msg = f"{where}: {_reason(error)}"
    if isinstance(error, TimeoutError):
        return RemoteTimeoutError(msg)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteDeniedError(msg)
    if isinstance(error, FormatError):
        return RemoteProtocolError(msg)
    broken = (OSError, http.client.IncompleteRead, http.client.RemoteDisconnected)
    if isinstance(error, broken):
        return RemoteUnavailableError(msg) if reached else RemoteUnreachableError(msg)
    return RemoteProtocolError(msg)


def _reason(error: Exception) -> str:
    """One printable line; http.client puts what the server sent into its messages."""
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended early"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text[:200])


def _retry_after_s(headers: http.client.HTTPMessage) -> float | None:
    text = str(headers.get("Retry-After", "")).strip()
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else None


def _pack_path(pack_id: PackId) -> str:
    name = pack_id.hex()
    return f"packs/{name[:2]}/{name}.pack"


def _checked_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
        parts = urlsplit("")
    strange = any(c.isspace() or not c.isprintable() for c in url)
    if not sound or parts.query or parts.fragment or strange:
        msg = "the URL of a remote must look like http://host[:port]/path"
        raise UsageError(msg)
    return parts
