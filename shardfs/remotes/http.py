"""A repository on a web server: ours, or any that serves a folder. Spec: docs/reference/http-api.md.

Reading needs GET and Range only. Nothing that the server says is believed: lengths are compared, bodies are bounded,
content codings are refused.
"""

from __future__ import annotations

import http.client
import io
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import quote, unquote

from shardfs.errors import (
    FormatError,
    PackNotFoundError,
    RefChangedError,
    RemoteDeniedError,
    RemotePermissionError,
    RemoteProtocolError,
    RemoteUnavailableError,
    RepositoryNotFoundError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats import wire
from shardfs.formats.ids import CommitId, PackId, pack_path
from shardfs.formats.ref import PackSize
from shardfs.remotes import fresh, redirects
from shardfs.remotes.address import address, split
from shardfs.remotes.answers import MAX_ERROR, BodyReader, RangeReader
from shardfs.remotes.base import RemoteRefs
from shardfs.remotes.credentials import Authorization
from shardfs.remotes.exchange import Answer, Exchanges, Request
from shardfs.remotes.throttle import Throttle
from shardfs.remotes.timedsocket import Timeouts
from shardfs.remotes.upload import upload

_MAX_LISTING: Final = 64 << 20  # bytes; 600 000 packs
_MAX_RETRY_AFTER_S: Final = 3600.0
_DENIED: Final = "does not accept changes"

_T = TypeVar("_T")


class HttpRemote:
    """A remote by http:// or https:// URL. One attempt per call; see `RetryingRemote`.

    Args:
        url: of the repository; user and password in it are shown nowhere; see `credentials`.
        name: how the user calls it.
        timeouts: limits of each attempt.
        tls: how certificates are checked; None: as the system does.
        authorization: what to show; None: what is found for the URL.
        throttle: limit of bytes per second.

    Raises:
        UsageError: not such a URL.
    """

    knows_ids = True  # a server that hands out files alone refuses `has`, as it refuses packs
    resumes = True

    def __init__(
        self,
        url: str,
        *,
        name: str = "origin",
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
        authorization: Authorization | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        parts, place = split(url), address(url)
        host = f"[{place.host}]" if ":" in place.host else place.host
        path = quote(unquote(parts.path).rstrip("/"), safe="/~")
        self.name = name
        self.url = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{path}"
        if place.scheme == "https" and tls is None:
            tls = ssl.create_default_context()
        who = f"remote {name} ({self.url})"
        shown = authorization or Authorization(url)
        self._exchanges = Exchanges(place, who, shown, tls, timeouts or Timeouts(), throttle)

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
        if fresh.is_demanded():
            headers["Cache-Control"] = "no-cache"
        answer = self._ask("GET", pack_path(pack_id), headers=headers, reader=RangeReader(offset, length))
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
            answer = self._ask("POST", "has", body=io.BytesIO(wire.ids_to_bytes(part)), reader=BodyReader(len(part)))
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
        answer = upload(self._exchanges.ask, path, pack_id)
        if answer is not None:
            self._expect_receipt(answer, id=pack_id.hex())

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`. A ref that is at `new` already counts as moved."""
        headers = {"If-None-Match": "*"} if old is None else {"If-Match": wire.entity_tag(old)}
        target = quote(ref_format.check_ref_name(name), safe="/")
        if new is None:
            answer = self._ask("DELETE", target, headers=headers)
        else:
            answer = self._ask("PUT", target, headers=headers, body=io.BytesIO(ref_format.ref_to_bytes(new)))
        if answer.status == 412:
            current = self._parsed(target, wire.current_from_bytes, answer.body)
            if current == new:
                return
            msg = f"{name} on {self.url} moved to {current.hex()[:12] if current else 'nothing'}"
            raise RefChangedError(msg, current)
        self._expect_repository(answer)
        self._expect_receipt(answer, ref=name, commit=None if new is None else new.hex())

    def close(self) -> None:
        """See `Remote.close`."""
        self._exchanges.close()

    # Requests

    def _listing(self, target: str, parse: Callable[[bytes], _T]) -> _T:
        answer = self._ask("GET", target, reader=BodyReader(_MAX_LISTING))
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
        body: BinaryIO | None = None,
        reader: BodyReader | None = None,
    ) -> Answer:
        """One request and its complete answer; errors as `Exchanges.ask`."""
        return self._exchanges.ask(Request(method, target, headers or {}, body, reader or BodyReader(MAX_ERROR)))

    # Judging answers

    def _expect_repository(self, answer: Answer) -> None:
        if answer.status in (404, 410):
            msg = f"no repository at {self.url}"
            raise RepositoryNotFoundError(msg)

    def _expect_receipt(self, answer: Answer, **said: str | None) -> None:
        self._expect(answer, 200, 201)
        if not wire.is_receipt(answer.body, **said):
            msg = f"{self.url} answered {answer.status} and does not say that the change was made; is it shardfs?"
            raise RemoteProtocolError(msg)

    def _expect(self, answer: Answer, *statuses: int) -> None:
        status = answer.status
        if status in statuses:
            return
        said = wire.error_from_bytes(answer.body) or http.client.responses.get(status, "")
        msg = f"{self.url} answered {status}: {said}"
        if status in (408, 425, 429) or (500 <= status < 600 and status not in (501, 505, 507)):
            raise RemoteUnavailableError(msg, _retry_after_s(answer.headers))
        if 300 <= status < 400:
            place = redirects.shown(answer.headers.get("Location"))
            msg = f"{self.url} redirects to {place!a}, where it is not followed; use the final address as the URL"
            raise RemoteProtocolError(msg)
        if status in (404, 405, 501):
            raise RemoteDeniedError(f"{self.url} {_DENIED} ({status}: {said})")
        if status == 403:
            asks = "WWW-Authenticate" in answer.headers
            hint = f"; if another token may do this: `shardfs login {self.url}`" if asks else ""
            raise RemotePermissionError(f"remote {self.name} ({self.url}) answered 403: {said}{hint}")
        if 400 <= status < 600 and status not in (416, 505):
            raise RemoteDeniedError(msg)
        raise RemoteProtocolError(msg)


def _retry_after_s(headers: http.client.HTTPMessage) -> float | None:
    """Seconds that a server wants to be left alone; it may say them, or until when."""
    text = str(headers.get("Retry-After", "")).strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        left = parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(left, 0.0), _MAX_RETRY_AFTER_S)
