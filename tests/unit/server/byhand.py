"""Speaking HTTP by hand."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from shardfs.formats.ids import CommitId


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def error(self) -> str:
        """The one-line message of a failure, which every failure must have."""
        assert self.headers["Content-Type"].startswith("application/json")
        text = json.loads(self.body)["error"]
        assert isinstance(text, str)
        assert "\n" not in text
        assert "Traceback" not in text
        return text


def ask(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def promise(url: str, path: str, size: int) -> Answer:
    """What a server answers to the head of a PUT; not a byte of its body is sent."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.putrequest("PUT", path)
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Hosted(NamedTuple):
    """A server with a repository `/demo` of three commits, and the root that it serves."""

    url: str
    root: Path
    commits: list[CommitId]
    packs: dict[str, bytes]
