"""Requests to a web server and their complete answers: credentials shown, redirects followed where that is safe."""

from __future__ import annotations

import http.client
import io
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import quote

from shardfs.errors import (
    FormatError,
    RemoteDeniedError,
    RemoteError,
    RemoteLoginError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
    StoreError,
)
from shardfs.remotes import cancelling, redirects, scheme
from shardfs.remotes.address import Address
from shardfs.remotes.answers import BodyReader
from shardfs.remotes.connection import Connection, Pool
from shardfs.remotes.credentials import Authorization
from shardfs.remotes.throttle import Throttle
from shardfs.remotes.timedsocket import Timeouts

_READ_SIZE: Final = 1 << 20
_MAX_ELSEWHERE: Final = 8  # servers that answers of one remote came from
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_UNKNOWN_AUTHORITY: Final = (2, 18, 19, 20, 21)  # what OpenSSL's verification says of an issuer that it has not


class Answer(NamedTuple):
    """Status, headers and a body that is complete."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        method: of HTTP.
        target: path, and query if there is one.
        headers: beside those of every request.
        body: what is sent along.
        reader: takes the body of the answer.
        offset: where in `body` what is sent begins, in bytes.
        told: of an upload that can go on where it breaks: called with how many bytes of `body` were sent.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: BinaryIO | io.BytesIO | None
    reader: BodyReader
    offset: int = 0
    told: Callable[[int], object] | None = None

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
        size = self.body.seek(0, os.SEEK_END) - self.offset
        position = self.body.seek(self.offset)
        connection.putheader("Content-Length", str(size))
        connection.putheader("Content-Type", "application/octet-stream")
        connection.endheaders()
        try:
            for block in _blocks(self.body):
                connection.send(block)
                position += len(block)
                if self.told is not None:
                    self.told(position)
        except (BrokenPipeError, ConnectionResetError):
            if connection.used and self.told is None:
                raise

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """The body of the answer; none for HEAD."""
        return response.read() if self.method == "HEAD" else self.reader.read(response)


class Exchanges:
    """Requests to one web server. Safe to share between threads.

    Args:
        place: where requests go, all below it.
        who: how messages call it.
        authorization: what opens it; shown to no other server.
        tls: how certificates are checked.
        timeouts: limits of each request.
        throttle: limit of bytes per second.
    """

    def __init__(
        self,
        place: Address,
        who: str,
        authorization: Authorization,
        tls: ssl.SSLContext | None,
        timeouts: Timeouts,
        throttle: Throttle | None = None,
    ) -> None:
        self._place = place
        self._path = "".join(f"/{quote(part, safe='~')}" for part in place.parts)
        self._who = who
        self._authorization = authorization
        self._tls = tls
        self._timeouts = timeouts
        self._throttle = throttle
        self._pool = Pool(place.host, place.port, tls, timeouts, throttle)
        self._elsewhere: dict[tuple[str, str, int], Pool] = {}
        self._guard = threading.Lock()
        self._is_sure = place.scheme != "http"  # whether it is known that the place does not speak TLS instead

    def ask(self, request: Request) -> Answer:
        """The answer to a request whose target is relative to the place.

        A server that wants a token is asked once more when there is a new one, and a GET is asked for where the server
        says that it is.

        Raises:
            RemoteLoginError: it does not let us in. RemoteError: no complete HTTP answer.
        """
        headers = {"User-Agent": "shardfs", **request.headers}
        request = request._replace(target=f"{self._path}/{request.target}", headers=headers)
        for _ in range(2):
            shown = self._authorization.header()
            login = {} if shown is None else {"Authorization": shown}
            answer, connection = self._send(self._pool, request._replace(headers={**request.headers, **login}))
            if answer.status != 401 or not self._authorization.renew(shown):
                break
        if answer.status == 400 and not self._is_sure and scheme.is_tls(self._place.host, self._place.port):
            raise RemoteProtocolError(f"{self._who}: {scheme.IS_HTTPS}")
        self._is_sure = True
        if answer.status == 401:
            raise RemoteLoginError(f"{self._who}: {self._authorization.told}")
        if answer.status in _REDIRECTS and request.method == "GET":
            return self._follow(answer, request, login, is_public=connection.is_public)
        return answer

    def close(self) -> None:
        """Let go of idle connections."""
        with self._guard:
            pools = [self._pool, *self._elsewhere.values()]
            self._elsewhere = {}
        for pool in pools:
            pool.close()

    def _follow(self, answer: Answer, request: Request, login: dict[str, str], *, is_public: bool) -> Answer:
        """The answer where a redirect leads; the redirect itself when it must not be followed, or leads on and on."""
        here, target = self._place, request.target
        for _ in range(redirects.MAX):
            found = redirects.resolve(here, target, answer.headers.get("Location"))
            if found is None:
                break
            here, target = found
            is_home = here.origin == self._place.origin
            pool = self._pool if is_home else self._pool_of(here, is_public=is_public)
            headers = {**request.headers, **(login if is_home else {})}
            answer, _ = self._send(pool, request._replace(target=target, headers=headers))
            if answer.status not in _REDIRECTS:
                break
        return answer

    def _pool_of(self, place: Address, *, is_public: bool) -> Pool:
        with self._guard:
            pool = self._elsewhere.get(place.origin)
            if pool is None:
                while len(self._elsewhere) >= _MAX_ELSEWHERE:
                    self._elsewhere.pop(next(iter(self._elsewhere))).close()
                tls = (self._tls or ssl.create_default_context()) if place.scheme == "https" else None
                pool = Pool(place.host, place.port, tls, self._timeouts, self._throttle, only_public=is_public)
                self._elsewhere[place.origin] = pool
            return pool

    def _send(self, pool: Pool, request: Request) -> tuple[Answer, Connection]:
        """One request and its answer, on an idle connection or a new one.

        A server may close an idle connection at the very moment it is used again; that is no failure of the server,
        so the request is repeated once on a fresh connection. All requests are safe to repeat.

        Raises:
            RemoteError: no complete HTTP answer.
        """
        where = f"{self._who}: {request.method} {request.target.partition('?')[0]}"
        connection = pool.take()
        try:
            return _exchange(pool, connection, request), connection
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            if not connection.used or request.told is not None:
                raise self._error(where, error, connection) from error
        except (OSError, http.client.HTTPException, FormatError) as error:
            raise self._error(where, error, connection) from error
        connection = pool.take(fresh=True)
        try:
            return _exchange(pool, connection, request), connection
        except (OSError, http.client.HTTPException, FormatError) as error:
            raise self._error(where, error, connection) from error

    def _error(self, where: str, error: Exception, connection: Connection) -> RemoteError:
        """What a failure means: of a first request over plain HTTP perhaps that the place speaks TLS."""
        found = _remote_error(where, error, reached=connection.reached)
        if self._is_sure or not connection.reached:
            return found
        if isinstance(error, TimeoutError):
            return RemoteTimeoutError(f"{found}; should the URL begin with https://?")
        if scheme.is_tls(self._place.host, self._place.port, error):
            return RemoteProtocolError(f"{where}: {scheme.IS_HTTPS}")
        self._is_sure = True  # or cannot be asked: once is enough
        return found


def _exchange(pool: Pool, connection: Connection, request: Request) -> Answer:
    done = False
    try:
        with cancelling.waiting_for(connection):
            request.send(connection)
            with connection.answer() as response:
                body = request.read(response)
                done = response.isclosed() and not response.will_close
                answer = Answer(response.status, response.headers, body)
    finally:
        if done:
            pool.give(connection)
        else:
            connection.close()
    return answer


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


def _remote_error(where: str, error: Exception, *, reached: bool) -> RemoteError:
    msg = f"{where}: {_reason(error)}"
    if isinstance(error, TimeoutError):
        return RemoteTimeoutError(msg)
    if isinstance(error, redirects.ForbiddenError) or _is_refusal(error):
        return RemoteDeniedError(msg)
    if isinstance(error, FormatError):
        return RemoteProtocolError(msg)
    broken = (OSError, http.client.IncompleteRead, http.client.RemoteDisconnected)
    if isinstance(error, broken):
        return RemoteUnavailableError(msg) if reached else RemoteUnreachableError(msg)
    return RemoteProtocolError(msg)


def _is_refusal(error: Exception) -> bool:
    """Whether one of both sides found the other one wanting, which no repeat changes."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or "")


def _reason(error: Exception) -> str:
    """One printable line; http.client puts what the server sent into its messages."""
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended early"
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "; `remote.ca_file` names other authorities" if error.verify_code in _UNKNOWN_AUTHORITY else ""
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}{hint}"
    if isinstance(error, ssl.SSLError) and scheme.is_plain(error):
        return scheme.IS_HTTP
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'broken').lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text[:200])
