from __future__ import annotations

import os
import socket
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from shardfs.config import Settings
from shardfs.errors import (
    PackNotFoundError,
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
)
from shardfs.formats.ids import PackId
from shardfs.remotes import deadline
from shardfs.remotes.base import Remote
from shardfs.remotes.objectstore import bucket as bucket_module
from shardfs.remotes.objectstore.places import open_object_store
from shardfs.store.packs import hash_file
from tests.s3server import SECRET, Answer, Request, S3Server, error

PACK = PackId(b"\1" * 32)
UPLOAD = (
    b"<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>u</UploadId>"
    b"</InitiateMultipartUploadResult>"
)


def place(deadline_s: float = 30.0) -> Remote:
    return open_object_store("s3://bucket/demo", "origin", Settings("A <a@b>", Path("/nowhere"), deadline_s=deadline_s))


CALLS: list[Callable[[Remote], object]] = [
    lambda r: r.refs(),
    lambda r: r.list_packs(),
    lambda r: r.read_pack(PACK, 0, 10),
    lambda r: r.put_pack(Path(__file__), PACK),
    lambda r: r.update_ref("refs/heads/main", None, None),
]
KINDS = [
    (error(403, "SignatureDoesNotMatch"), RemoteDeniedError, "secret key does not match"),
    (error(403, "InvalidAccessKeyId"), RemoteDeniedError, "no such access key"),
    (error(403, "AccessDenied"), RemoteDeniedError, "may not"),
    (error(401, "Unauthorized"), RemoteDeniedError, "401"),
    (error(400, "ExpiredToken"), RemoteDeniedError, "expired"),
    (error(404, "NoSuchBucket"), RemoteDeniedError, "no such bucket"),
    (error(503, "SlowDown"), RemoteUnavailableError, "503: SlowDown"),
    (error(400, "XAmzContentSHA256Mismatch"), RemoteUnavailableError, "arrived with other bytes"),
    (error(500, "InternalError"), RemoteUnavailableError, "500"),
    (error(429, "TooManyRequests"), RemoteUnavailableError, "429"),
    (error(507, "InsufficientStorage"), RemoteDeniedError, "507"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("answer", "kind", "text"), KINDS)
def test_answers_become_errors_of_one_line_without_secrets(
    server: S3Server, call: Callable[[Remote], object], answer: Answer, kind: type[RemoteError], text: str
) -> None:
    server.judge = lambda _: answer
    with pytest.raises(RemoteError) as caught:
        call(place())
    assert type(caught.value) is kind
    assert "s3://bucket/demo" in str(caught.value)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "AKIASECRET" not in shown
    assert len({request.path for request in server.asked}) == 1
    assert len(server.asked) == (4 if answer.status == 429 or answer.status >= 500 else 1)


def test_one_request_that_fails_at_once_costs_nothing(server: S3Server) -> None:
    failed: set[tuple[str, str]] = set()

    def judge(request: Request) -> Answer | None:
        if (request.method, request.path) in failed:
            return None
        failed.add((request.method, request.path))
        return error(500, "InternalError")

    server.judge = judge
    place().put_pack(Path(__file__), hash_file(Path(__file__)))
    assert place().refs().refs == {}
    assert len(failed) > 10


def test_no_pack(server: S3Server) -> None:
    with pytest.raises(PackNotFoundError):
        place().read_pack(PACK, 0, 10)
    assert server.asked[0].path == f"/bucket/demo/packs/01/{PACK.hex()}.pack"


@pytest.mark.parametrize("body", [b"hello", b"<?xml version='1.0'?><html>login</html>"])
def test_what_is_no_listing_is_refused(server: S3Server, body: bytes) -> None:
    server.judge = lambda _: Answer(200, body)
    with pytest.raises(RemoteProtocolError):
        place().refs()


@pytest.mark.parametrize(
    "state", [b"", b"{}", b'{"version": 2, "refs": {}}', b'{"version": 1, "refs": {}, "number": 7}']
)
def test_what_is_no_state_is_refused(server: S3Server, state: bytes) -> None:
    server.objects["demo/refs/0000000000000008"] = state
    with pytest.raises(RemoteProtocolError, match="s3://bucket/demo/refs"):
        place().refs()


@pytest.mark.parametrize("name", ["packs//x", "packs/../x", "packs/\x01"])
def test_names_that_are_no_paths_are_refused(server: S3Server, name: str) -> None:
    server.objects[f"demo/{name}"] = b"1"
    with pytest.raises(RemoteProtocolError, match="an object has a name"):
        place().list_packs()


def test_a_store_that_ignores_ranges_is_refused(server: S3Server) -> None:
    server.objects[f"demo/packs/01/{PACK.hex()}.pack"] = bytes(1000)
    with pytest.raises(RemoteProtocolError):
        place().read_pack(PACK, 0, 10)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(RemoteUnreachableError, match="connection refused"):
        place().refs()


def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.port}")
    with pytest.raises(RemoteDeniedError, match="TLS"):
        place().refs()


def test_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        remote = place(0.2)
        with pytest.raises(RemoteTimeoutError, match="no answer in time"):
            remote.refs()


def test_waits_end_with_the_limit_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = os.times().elapsed
        with deadline.limit(0.2), pytest.raises(RemoteTimeoutError):
            place().refs()
        assert os.times().elapsed - before < 10  # not the 15 s that it would wait by itself


@pytest.mark.timeout(60)
def test_a_store_that_falls_silent_under_an_upload(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait fits what is sent; it would be two minutes, as long as the longest part may take."""
    monkeypatch.setattr(bucket_module, "_LEAST_SPEED", 4 << 20)
    path, released = tmp_path / "pack", threading.Event()
    path.write_bytes(bytes(1 << 20))

    def judge(request: Request) -> None:
        if request.method == "PUT" and "/packs/" in request.path:
            released.wait()

    server.judge = judge
    with pytest.raises(RemoteTimeoutError, match="no answer in time"):
        place(0.5).put_pack(path, hash_file(path))
    released.set()


def test_a_part_is_waited_for_as_long_as_the_page_says() -> None:
    waits: list[str] = []

    def make_store(options: Any, *_: object) -> MemoryStore:
        waits.append(options["read_timeout"])
        return MemoryStore()

    bucket = bucket_module.Bucket(make_store, "s3://bucket/place", deadline_s=30)
    bucket.put("packs/a", bytes(bucket_module.PART_SIZE))
    assert waits == ["16000ms", "128000ms"]


def test_an_answer_is_taken_for_as_long_as_the_page_says() -> None:
    waits: list[str] = []

    def make_store(options: Any, _again: Any) -> MemoryStore:
        waits.append(options["timeout"])
        return MemoryStore()

    bucket = bucket_module.Bucket(make_store, "s3://bucket/place", deadline_s=30)
    bucket.list("packs")
    assert bucket.get_range("packs/a", 0, 8 << 20) is None
    assert waits[1:] == ["80000ms", "528000ms"]


@pytest.mark.timeout(60)
def test_a_store_that_falls_silent_in_the_middle_of_a_part(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the next attempt sends one part at a time: the line may be slow, not silent."""
    monkeypatch.setattr(bucket_module, "_LEAST_SPEED", 16 << 20)
    path, released, parts = tmp_path / "pack", threading.Event(), list[str]()
    path.write_bytes(bytes(6 * bucket_module.PART_SIZE))

    def wait(method: str, path: str) -> None:
        if method == "PUT" and "partNumber" in path:
            parts.append(path)
            released.wait()

    def judge(request: Request) -> Answer | None:
        return {"POST": Answer(200, UPLOAD), "DELETE": Answer(204)}.get(request.method)

    server.before_body, server.judge = wait, judge
    remote = place(0.5)
    for sent_at_once in (4, 1):
        with pytest.raises(RemoteTimeoutError, match="no answer in time"):
            remote.put_pack(path, hash_file(path))
        assert len(parts) == sent_at_once
        parts.clear()
    released.set()
