"""A proxy between a lazy clone and its server that fails now and then, by a seed."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("error", "busy", "reset", "cut", "half", "pause", "silence", "wrong")
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class FlakyProxy:
    """Forwards requests; while `flaky` is above 0, that share of them meets one of `FAULTS`.

    Attributes:
        url: where clients ask.
        flaky: share of requests that fail.
        met: how often each fault happened.
    """

    def __init__(self, upstream: str, seed: int, silence_s: float) -> None:
        self.flaky = 0.0
        self.met: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._guard = threading.Lock()
        proxy = self

        class Handler(_Handler):
            target = urlsplit(upstream)
            pause_s = silence_s

            def fault(self) -> str:
                return proxy._draw()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients hang up: that is the point
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _draw(self) -> str:
        with self._guard:
            fault = self._chance.choice(FAULTS) if self._chance.random() < self.flaky else ""
            self.met[fault] += 1
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: Any
    pause_s: float

    def fault(self) -> str:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        fault = self.fault()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in ("error", "busy"):
            self._answer(500 if fault == "error" else 503, {"Retry-After": "0"}, b"{}")
        elif fault == "reset":
            self._reset()
        elif fault == "silence":
            threading.Event().wait(self.pause_s)
            self._reset()
        else:
            if fault == "pause":
                threading.Event().wait(0.3)
            self._forward(body, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _forward(self, body: bytes, fault: str) -> None:
        upstream = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {*_HOP, "host"}}
        upstream.request(self.command, self.path, body or None, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length") or "0"
        if fault == "wrong" and data:
            place = len(data) // 2
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        self._answer(answer.status, kept, data, cut={"cut": 0.5, "half": 0.99}.get(fault))

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: float | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if cut is None else data[: int(len(data) * cut)])
        if cut is not None:
            self._reset()

    def _reset(self) -> None:
        """Hang up without a word, as a machine that crashed."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
