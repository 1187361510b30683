"""Servers that break every promise: the client gives the right error in bounded time, and never wrong bytes."""

from __future__ import annotations

import base64
import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.errors import (
    PackNotFoundError,
    RefChangedError,
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
    RepositoryNotFoundError,
    ShardfsError,
    StoreError,
)
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes import deadline
from shardfs.remotes.base import read_pack_tail
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.retry import RetryingRemote
from shardfs.remotes.timedsocket import Timeouts
from tests.faults.badserver import Answer, BadServer, answer, bad_server, endless

pytestmark = pytest.mark.network

PACK = PackId(b"\5" * 32)
COMMIT = CommitId(b"\6" * 32)
MAIN = "refs/heads/main"
QUICK = Timeouts(connect_s=0.5, answer_s=0.3, idle_s=0.3, min_bytes_per_s=8192)
REFS = json.dumps({"version": 1, "head": MAIN, "refs": {}}).encode()


_opened: list[HttpRemote] = []


@pytest.fixture(autouse=True)
def _close_remotes() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def remote_at(url: str, timeouts: Timeouts = QUICK) -> HttpRemote:
    _opened.append(HttpRemote(url, timeouts=timeouts))
    return _opened[-1]


def read_range(remote: HttpRemote) -> bytes:
    return remote.read_pack(PACK, 100, 10)


def outcome(given: Answer, call: Callable[[HttpRemote], object]) -> ShardfsError:
    """The error of a call; fails when there is none, or when it takes long."""
    with bad_server(given) as server:
        return outcome_at(server, call)


def outcome_at(server: BadServer, call: Callable[[HttpRemote], object]) -> ShardfsError:
    remote = remote_at(server.url)
    started = time.monotonic()
    with pytest.raises(ShardfsError) as caught:
        call(remote)
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    return caught.value


# Nobody there, nothing said, or not enough of it


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RemoteUnreachableError, match="refused"):
        remote_at(f"http://127.0.0.1:{port}/repo").refs()


def test_unknown_host() -> None:
    with pytest.raises(RemoteError) as caught:
        remote_at("http://no-such-host.invalid/repo").refs()
    assert caught.value.retryable


def test_address_that_swallows_packets() -> None:
    """A full backlog of a listener that never accepts: connections neither succeed nor fail."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        started = time.monotonic()
        with pytest.raises(RemoteTimeoutError):
            remote_at(f"http://127.0.0.1:{listener.getsockname()[1]}/repo").refs()
        assert time.monotonic() - started < 3
        for filler in fillers:
            filler.close()


def test_answers_nothing_at_all() -> None:
    with bad_server() as server:
        server._answers = [server.silence]
        assert isinstance(outcome_at(server, read_range), RemoteTimeoutError)


def test_drips() -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-109/1000\r\n"
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with bad_server() as server:
        for given, call in (
            (server.drip(b"", b"H"), read_range),
            (server.drip(head, b"X-Header: 1\r\n"), read_range),
            (server.drip(long, b"x"), HttpRemote.refs),
            (server.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), HttpRemote.refs),
            (server.then_silence(long + b"half"), HttpRemote.refs),
            (server.then_silence(head), read_range),
        ):
            server._answers = [given]
            assert isinstance(outcome_at(server, call), RemoteTimeoutError)


def test_slow_but_sound_is_served() -> None:
    """The limit on speed is for hangs; a body that takes longer than any single wait is fine."""
    body = REFS.replace(b"{}", b"{" + b" " * 40_000 + b"}")

    def slow(client: socket.socket) -> None:
        client.sendall(answer("200 OK", b"", length=len(body)))
        for start in range(0, len(body), 2000):
            time.sleep(0.03)
            client.sendall(body[start : start + 2000])

    with bad_server(slow) as server:
        started = time.monotonic()
        assert remote_at(server.url).refs().head == MAIN
        assert time.monotonic() - started > QUICK.idle_s


def test_a_long_range_that_comes_slowly_is_served() -> None:
    """Long bodies are waited for in bursts; one that takes longer than any single wait is no hang."""
    body = bytes(range(256)) * 2000

    def slow(client: socket.socket) -> None:
        head = answer("206 Partial Content", b"", f"Content-Range: bytes 0-{len(body) - 1}/1000000", length=len(body))
        client.sendall(head + body[:150_000])
        for start in range(150_000, len(body), 40_000):
            time.sleep(0.1)
            client.sendall(body[start : start + 40_000])

    with bad_server(slow) as server:
        started = time.monotonic()
        assert remote_at(server.url).read_pack(PACK, 0, len(body)) == body
        assert time.monotonic() - started > QUICK.idle_s


@pytest.mark.parametrize(
    "given",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nabcde\r\n",
    ],
)
def test_body_that_ends_early(given: bytes) -> None:
    assert isinstance(outcome(given, HttpRemote.refs), RemoteUnavailableError)


def test_hangs_up() -> None:
    assert isinstance(outcome(lambda client: client.close(), HttpRemote.refs), RemoteUnavailableError)


# Too much


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (HttpRemote.refs, "200 OK"),
        (HttpRemote.list_packs, "200 OK"),
        (read_range, "206 Partial Content"),
        (lambda r: r.read_pack(PACK, 1 << 30, 10), "200 OK"),
        (lambda r: r.has([PACK]), "200 OK"),
    ],
)
@pytest.mark.parametrize("length", [1 << 42, 1 << 62])
def test_huge_declared_length(call: Callable[[HttpRemote], object], status: str, length: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = answer(status, b"x" * 1000, "Content-Range: bytes 100-109/1000", length=length)
    error = outcome(endless(start, b"x" * 65536), call)
    assert isinstance(error, RemoteProtocolError | RemoteDeniedError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-109/1000\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-109/1000\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_endless_body(start: bytes) -> None:
    piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n" if b"chunked" in start else b"x" * 65536
    assert isinstance(outcome(endless(start, piece), read_range), RemoteProtocolError)


def test_endless_error_body() -> None:
    start = b"HTTP/1.1 500 Bad\r\nConnection: close\r\n\r\n"
    assert isinstance(outcome(endless(start, b"x" * 65536), HttpRemote.refs), RemoteUnavailableError)


@pytest.mark.parametrize("piece", [b"x" * 65536, b"A: b\r\n" * 1000])
def test_endless_headers(piece: bytes) -> None:
    assert isinstance(outcome(endless(b"HTTP/1.1 200 OK\r\nX: ", piece), HttpRemote.refs), RemoteProtocolError)


# Statuses


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
@pytest.mark.parametrize("call", [HttpRemote.refs, read_range, lambda r: r.has([PACK])])
def test_server_trouble_is_retryable_and_not_absence(status: int, call: Callable[[HttpRemote], object]) -> None:
    error = outcome(answer(f"{status} Trouble", b'{"error": "too\\nbusy"}', "Retry-After: 7"), call)
    assert isinstance(error, RemoteUnavailableError)
    assert error.retry_after_s == 7
    assert "too busy" in str(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused_with_their_target(status: int) -> None:
    with bad_server(answer(f"{status} Moved", b"", "Location: http://elsewhere.example/\x1b[31mx")) as server:
        error = outcome_at(server, read_range)
        assert isinstance(error, RemoteProtocolError)
        assert "elsewhere.example" in str(error)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 405, 409, 413, 422, 501, 507])
def test_refusals_are_final(status: int) -> None:
    error = outcome(answer(f"{status} No"), lambda r: r.update_ref(MAIN, None, COMMIT))
    assert isinstance(error, RemoteDeniedError)


def test_absence() -> None:
    gone = answer("404 Not Found")
    assert isinstance(outcome(gone, HttpRemote.refs), RepositoryNotFoundError)
    assert isinstance(outcome(gone, HttpRemote.list_packs), RepositoryNotFoundError)
    assert isinstance(outcome(gone, read_range), PackNotFoundError)


# Ranges


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], b"0123456789"),
        (["Content-Range: bytes 100-109/1000"], b"01234567890"),
        (["Content-Range: bytes 100-109/1000"], b"012345678"),
        (["Content-Range: bytes 0-9/1000"], b"0123456789"),
        (["Content-Range: bytes 100-110/1000"], b"0123456789"),
        (["Content-Range: bytes 109-100/1000"], b"0123456789"),
        (["Content-Range: items 100-109/1000"], b"0123456789"),
        (["Content-Range: bytes 100-109/1000", "Content-Encoding: gzip"], b"0123456789"),
        (["Content-Type: multipart/byteranges; boundary=x"], b"--x\r\n\r\n"),
    ],
)
def test_wrong_ranges_are_refused(headers: list[str], body: bytes) -> None:
    assert isinstance(outcome(answer("206 Partial Content", body, *headers), read_range), RemoteProtocolError)


def test_right_range_is_taken() -> None:
    for total in ("1000", "*"):
        given = answer("206 Partial Content", b"0123456789", f"Content-Range: bytes 100-109/{total}")
        with bad_server(given) as server:
            assert read_range(remote_at(server.url)) == b"0123456789"
            assert b"\r\nRange: bytes=100-109\r\n" in server.requests[0] + b"\r\n"
            assert b"gzip" not in server.requests[0]


def test_server_that_ignores_ranges() -> None:
    data = bytes(range(200))
    with bad_server(answer("200 OK", data)) as server:
        assert read_range(remote_at(server.url)) == data[100:110]
        assert isinstance(outcome_at(server, lambda r: r.read_pack(PACK, 195, 10)), RemoteProtocolError)
    start = answer("200 OK", b"", length=1 << 40)
    error = outcome(endless(start, bytes(1 << 20)), lambda r: r.read_pack(PACK, 1 << 30, 10))
    assert isinstance(error, RemoteProtocolError)
    assert "ignores Range" in str(error)


def test_range_not_satisfiable() -> None:
    assert isinstance(outcome(answer("416 Range Not Satisfiable"), read_range), RemoteProtocolError)


# Nonsense


@pytest.mark.parametrize(
    "given",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01" + bytes(100) + b"\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ],
)
def test_not_http(given: bytes) -> None:
    assert isinstance(outcome(given, HttpRemote.refs), RemoteProtocolError)


ID = "a" * 64


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (HttpRemote.refs, b"<html>hello</html>"),
        (HttpRemote.refs, b""),
        (HttpRemote.refs, b"[" * 100_000),
        (HttpRemote.refs, b'{"version": 1, "refs": []}'),
        (HttpRemote.refs, b'{"version": 2, "refs": {}}'),
        (HttpRemote.refs, b'{"version": 1, "head": "../x", "refs": {}}'),
        (HttpRemote.refs, json.dumps({"version": 1, "refs": {"refs/heads/../../etc/x": ID}}).encode()),
        (HttpRemote.refs, json.dumps({"version": 1, "refs": {MAIN: ID[:-1]}}).encode()),
        (HttpRemote.refs, json.dumps({"version": 1, "refs": {MAIN: 7}}).encode()),
        (HttpRemote.list_packs, json.dumps({"version": 1, "packs": [{"id": "../" * 20, "size": 1}]}).encode()),
        (HttpRemote.list_packs, json.dumps({"version": 1, "packs": [{"id": ID, "size": -1}]}).encode()),
        (HttpRemote.list_packs, json.dumps({"version": 1, "packs": [{"id": ID, "size": 1 << 60}]}).encode()),
        (HttpRemote.list_packs, json.dumps({"version": 1, "packs": [7]}).encode()),
        (HttpRemote.list_packs, json.dumps({"version": 1, "packs": {}}).encode().replace(b"{}", b"7")),
        (lambda r: r.has([PACK, PACK]), b"\1"),
        (lambda r: r.has([PACK, PACK]), b"\1\2"),
        (lambda r: r.has([PACK, PACK]), b"\1\1\1"),
    ],
)
def test_nonsense_bodies(call: Callable[[HttpRemote], object], body: bytes) -> None:
    assert isinstance(outcome(answer("200 OK", body), call), RemoteProtocolError)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"current": 7}', b'{"current": "zz"}'])
def test_nonsense_about_a_lost_compare_and_swap(body: bytes) -> None:
    error = outcome(answer("412 Precondition Failed", body), lambda r: r.update_ref(MAIN, None, COMMIT))
    assert isinstance(error, RemoteProtocolError)


def test_lost_compare_and_swap_says_where_the_ref_is() -> None:
    given = answer("412 Precondition Failed", json.dumps({"current": ID}).encode())
    error = outcome(given, lambda r: r.update_ref(MAIN, None, COMMIT))
    assert isinstance(error, RefChangedError)
    assert error.current == bytes.fromhex(ID)


def test_move_that_took_place_already_is_no_lost_compare_and_swap() -> None:
    with bad_server(answer("412 Precondition Failed", json.dumps({"current": ID}).encode())) as server:
        remote_at(server.url).update_ref(MAIN, None, CommitId(bytes.fromhex(ID)))


def test_damaged_pack_tail() -> None:
    body = bytes(1000)
    given = answer("206 Partial Content", body, "Content-Range: bytes 0-999/1000")
    assert isinstance(outcome(given, lambda r: read_pack_tail(r, PackSize(PACK, 1000), 200)), RemoteProtocolError)


# Connections that are used again


def test_idle_connection_that_the_server_closed_is_replaced() -> None:
    good = answer("200 OK", REFS)

    def once(client: socket.socket) -> None:
        client.sendall(good)

    with bad_server(once) as server:
        remote = remote_at(server.url)
        for _ in range(5):
            assert remote.refs().head == MAIN


def test_connection_that_dies_when_it_is_used_again_is_replaced_once() -> None:
    with bad_server(answer("200 OK", REFS), lambda client: client.close(), answer("200 OK", REFS)) as server:
        remote = remote_at(server.url)
        remote.refs()
        remote.refs()
        assert len(server.requests) == 3


def test_connections_are_kept_and_leftovers_are_not_read() -> None:
    stray = answer("200 OK", REFS) + answer("200 OK", b"stray")
    with bad_server(stray) as server:
        remote = remote_at(server.url)
        for _ in range(3):
            assert remote.refs().head == MAIN


def test_leftovers_of_a_long_body_are_not_read() -> None:
    body = bytes(1 << 20)
    head = answer("206 Partial Content", b"", f"Content-Range: bytes 0-{len(body) - 1}/2000000", length=len(body))
    came = threading.Event()

    def with_leftovers(client: socket.socket) -> None:
        client.sendall(head + body)
        came.wait(10)
        client.sendall(answer("206 Partial Content", b"wrong", "Content-Range: bytes 0-4/2000000"))

    with bad_server(with_leftovers) as server:
        remote = remote_at(server.url)
        for _ in range(2):
            assert remote.read_pack(PACK, 0, len(body)) == body
            came.set()
            time.sleep(0.05)


# Uploads


def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.pack"
    path.write_bytes(bytes(30 << 20))
    return path


@pytest.mark.parametrize("reads_on", [True, False])
def test_refusal_in_the_middle_of_an_upload_is_heard(tmp_path: Path, *, reads_on: bool) -> None:
    path = big_file(tmp_path)

    def refuse(client: socket.socket) -> None:
        client.sendall(answer("403 Forbidden", b'{"error": "quota"}', "Connection: close"))
        client.shutdown(socket.SHUT_WR)
        while reads_on and client.recv(1 << 20):
            pass

    with bad_server(answer("404 Not Found"), refuse) as server:
        error = outcome_at(server, lambda r: r.put_pack(path, PACK))
        assert isinstance(error, RemoteDeniedError)
        assert "quota" in str(error)


def test_upload_that_nobody_reads(tmp_path: Path) -> None:
    path = big_file(tmp_path)
    with bad_server(answer("404 Not Found")) as server:
        server._answers.append(server.silence)
        assert isinstance(outcome_at(server, lambda r: r.put_pack(path, PACK)), RemoteTimeoutError)


def test_upload_to_a_server_that_hangs_up(tmp_path: Path) -> None:
    path = big_file(tmp_path)
    with bad_server(answer("404 Not Found"), lambda client: client.close()) as server:
        assert isinstance(outcome_at(server, lambda r: r.put_pack(path, PACK)), RemoteUnavailableError)


def test_upload_that_gets_nowhere_is_not_begun_again(tmp_path: Path) -> None:
    path = big_file(tmp_path)
    nothing, hang_up = answer("404 Not Found"), lambda client: client.close()
    with bad_server(nothing, hang_up, nothing, hang_up, answer("403 Forbidden")) as server:
        assert isinstance(outcome_at(server, lambda r: r.put_pack(path, PACK)), RemoteUnavailableError)
        assert [request.split()[0] for request in server.requests] == [b"HEAD", b"PUT", b"HEAD"]


def test_upload_is_begun_anew_once(tmp_path: Path) -> None:
    path = tmp_path / "some.pack"
    path.write_bytes(b"pack")
    some, unfit = answer("404 Not Found", b"", "Upload-Offset: 2"), answer("400 Bad Request")
    with bad_server(some, unfit, lambda client: client.close(), some, unfit, answer("201 Created")) as server:
        assert isinstance(outcome_at(server, lambda r: r.put_pack(path, PACK)), RemoteDeniedError)
        assert len(server.requests) == 5


@pytest.mark.parametrize("offset", ["5", "-1", "x", "9" * 30])
def test_upload_does_not_go_on_where_the_pack_has_nothing(tmp_path: Path, offset: str) -> None:
    path = tmp_path / "some.pack"
    path.write_bytes(b"pack")
    receipt = json.dumps({"id": PACK.hex()}).encode()
    with bad_server(answer("404 Not Found", b"", f"Upload-Offset: {offset}"), answer("201 Created", receipt)) as server:
        remote_at(server.url).put_pack(path, PACK)
        assert b"Content-Range" not in server.requests[1]
        assert b"Content-Length: 4\r\n" in server.requests[1]


def test_pack_of_another_size_is_not_this_one(tmp_path: Path) -> None:
    path = tmp_path / "some.pack"
    path.write_bytes(b"pack")
    receipt = json.dumps({"id": PACK.hex()}).encode()
    with bad_server(answer("200 OK", length=3), answer("201 Created", receipt)) as server:
        remote_at(server.url).put_pack(path, PACK)
        assert [request.split()[0] for request in server.requests] == [b"HEAD", b"PUT"]


def test_pack_that_is_there_is_not_sent(tmp_path: Path) -> None:
    with bad_server(answer("200 OK", b"", length=30 << 20)) as server:
        remote_at(server.url).put_pack(big_file(tmp_path), PACK)
        assert [r.split()[0] for r in server.requests] == [b"HEAD"]


def test_upload_of_a_file_that_is_gone(tmp_path: Path) -> None:
    error = outcome(answer("404 Not Found"), lambda r: r.put_pack(tmp_path / "gone", PACK))
    assert isinstance(error, StoreError)


# Whole calls with repeats


def test_repeats_end_by_the_deadline() -> None:
    with bad_server() as server:
        server._answers = [server.silence]
        remote = RetryingRemote(remote_at(server.url, Timeouts()), 0.8)  # whose own limits are far longer
        started = time.monotonic()
        with pytest.raises(RemoteTimeoutError):
            remote.refs()
        assert time.monotonic() - started < 2


def test_limit_of_a_caller_bounds_any_call() -> None:
    with bad_server() as server:
        server._answers = [server.silence]
        started = time.monotonic()
        with pytest.raises(RemoteTimeoutError), deadline.limit(0.3):
            remote_at(server.url, Timeouts()).refs()
        assert time.monotonic() - started < 2


def test_trouble_that_passes_is_not_noticed() -> None:
    with bad_server(answer("503 Busy"), lambda c: c.close(), b"HTTP", answer("200 OK", REFS)) as server:
        server._answers[2] = server.then_silence(b"HTT")
        assert RetryingRemote(remote_at(server.url), 10).refs().head == MAIN
        assert len(server.requests) == 4


# Secrets


def test_credentials_are_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    with bad_server(answer("500 Oops")) as server, caplog.at_level(logging.DEBUG):
        remote = remote_at(server.url.replace("http://", "http://us%40er:sec%20ret@"))
        with pytest.raises(RemoteUnavailableError) as caught:
            RetryingRemote(remote, 0.5).refs()
        expected = base64.b64encode(b"us@er:sec ret")
        assert b"Authorization: Basic " + expected in server.requests[0]
    for text in (str(caught.value), remote.url, repr(remote), caplog.text):
        assert "sec" not in text.replace("second", "")
        assert expected.decode() not in text
