"""A server that speaks as much S3 as a remote asks for, and misbehaves as a test wants. Real stores: tests/swift.py."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

SECRET = "a-secret-that-nobody-may-see"
_MODIFIED = "Fri, 20 Nov 2026 18:00:00 GMT"


class Request(NamedTuple):
    """What a client asked."""

    method: str
    path: str
    condition: str | None
    body: bytes


class Answer(NamedTuple):
    """What it is told."""

    status: int
    body: bytes = b""


def error(status: int, code: str) -> Answer:
    """An answer as S3 gives it, with things that belong into no message."""
    secret = f"<Message>no</Message><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign>"
    return Answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code>{secret}</Error>".encode())


@dataclass
class S3Server:
    """A bucket in memory. `judge` may answer in its place; `asked`: all requests so far.

    `before_body` is called with method and path of a request whose body is not read yet.
    """

    port: int = 0
    before_body: Callable[[str, str], object] = lambda *_: None
    judge: Callable[[Request], Answer | None] = lambda _: None
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    ignores_conditions: bool = False
    is_racy: bool = False  # looks whether there is an object first, and makes it later
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Put into the environment what a client needs."""
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRET")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def answer(self, request: Request) -> Answer:
        """The answer to a request."""
        self.asked.append(request)
        special = self.judge(request)
        if special is not None:
            return special
        url = urlsplit(request.path)
        bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
        if request.method == "PUT":
            with nullcontext() if self.is_racy else self._guard:
                if request.condition == "*" and key in self.objects and not self.ignores_conditions:
                    return error(412, "PreconditionFailed")
                if self.is_racy:
                    threading.Event().wait(0.02)
                self.objects[key] = request.body
            return Answer(200)
        if request.method in ("GET", "HEAD") and key:
            return Answer(200, self.objects[key]) if key in self.objects else error(404, "NoSuchKey")
        if request.method == "GET":
            return Answer(200, self._listing(bucket, parse_qs(url.query).get("prefix", [""])[0]))
        return error(405, "MethodNotAllowed")

    def _listing(self, bucket: str, prefix: str) -> bytes:
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-20T18:00:00.000Z</LastModified>"
            f"<ETag>&quot;{_tag(data)}&quot;</ETag><Size>{len(data)}</Size></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        head = f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        return f"<?xml version='1.0'?><ListBucketResult>{head}{found}</ListBucketResult>".encode()


def _tag(data: bytes) -> str:
    return hashlib.blake2s(data).hexdigest()


@contextmanager
def s3_server(tls: ssl.SSLContext | None = None) -> Iterator[S3Server]:
    """A server on a free port of the loopback interface; `tls`: for https."""
    server = S3Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            server.before_body(self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = server.answer(Request(self.command, self.path, self.headers.get("If-None-Match"), body))
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Last-Modified", _MODIFIED)
            self.send_header("ETag", f'"{_tag(answer.body)}"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server.port = listener.server_address[1]
        if tls is not None:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True)
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
