"""The server process: how it starts, stops, and lives with what happens beside it."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.formats.ids import chunk_id
from shardfs.formats.ref import packs_from_bytes
from tests.serving import serving
from tests.stores import add_commit, make_store
from tests.unit.server.byhand import ask

pytestmark = pytest.mark.network


def test_repository_replaced_under_the_server(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "demo", 1)
    store.close()
    with serving(tmp_path) as server:
        assert ask(server.url, "POST", "/demo/has", commits[0]).body == b"\1"
        (tmp_path / "demo").rename(tmp_path / "old")
        assert ask(server.url, "POST", "/demo/has", commits[0]).status == 404
        fresh, others = make_store(tmp_path / "demo", 1)
        fresh.close()
        assert ask(server.url, "POST", "/demo/has", commits[0] + others[0]).body == b"\0\1"


def test_server_finishes_what_a_killed_one_began(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "demo", 1)
    listings = (store.layout.info_packs, store.layout.info_refs)
    stale = [path.read_bytes() for path in listings]
    new = add_commit(store, commits[-1], 2)
    for path, content in zip(listings, stale, strict=True):
        path.write_bytes(content)
    store.close()
    with serving(tmp_path) as server:
        assert new.hex().encode() in ask(server.url, "GET", "/demo/info/refs").body
        assert len(packs_from_bytes(ask(server.url, "GET", "/demo/info/packs").body)) == 2


def test_repository_whose_making_was_interrupted_is_made(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "demo", 0)
    store.close()
    (tmp_path / "demo/config.toml").unlink()
    (tmp_path / "demo/index.sqlite").unlink()
    with serving(tmp_path) as server:
        assert ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x").status == 201


def test_busy_writer_does_not_keep_readers_waiting(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "demo", 1)
    with store.lock.hold("commit"), serving(tmp_path) as server:
        assert commits[-1].hex().encode() in ask(server.url, "GET", "/demo/info/refs").body
    store.close()


def test_commits_made_beside_the_server_are_seen(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "demo", 1)
    with serving(tmp_path) as server:
        ask(server.url, "POST", "/demo/has", commits[0])
        new = add_commit(store, commits[0], 2)
        assert ask(server.url, "POST", "/demo/has", new).body == b"\1"
        assert new.hex().encode() in ask(server.url, "GET", "/demo/info/refs").body
    store.close()


def test_sigterm_lets_a_request_end(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "other", 1)
    (pack_id,) = store.index.packs()
    data = store.layout.pack(pack_id).read_bytes()
    store.close()
    with serving(tmp_path / "root") as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
            head = f"PUT /demo/packs/{pack_id.hex()} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            client.sendall(head.encode() + data[:100])
            _wait_for_upload(tmp_path / "root/demo/tmp")
            server.process.send_signal(signal.SIGTERM)
            _wait_until_refused(parts.hostname or "", parts.port or 0)
            client.sendall(data[100:])
            assert client.recv(100).startswith(b"HTTP/1.1 201")
        server.process.wait(20)  # a second signal while the interpreter ends would kill it
    assert (tmp_path / "root/demo/packs" / pack_id.hex()[:2] / f"{pack_id.hex()}.pack").read_bytes() == data


def _wait_until_refused(host: str, port: int) -> None:
    for _ in range(1000):
        try:
            socket.create_connection((host, port), timeout=5).close()
        except (ConnectionRefusedError, ConnectionResetError):  # the latter: it closed with us in its queue
            return
        threading.Event().wait(0.005)
    raise AssertionError("the server still listens")


def _wait_for_upload(folder: Path) -> None:
    for _ in range(2000):
        if folder.is_dir() and any(folder.iterdir()):
            return
        threading.Event().wait(0.005)
    raise AssertionError("upload did not begin")


def test_sigterm_does_not_wait_for_idle_or_stuck_clients(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        parts = urlsplit(server.url)
        idle = socket.create_connection((parts.hostname, parts.port), timeout=20)
        stuck = socket.create_connection((parts.hostname, parts.port), timeout=20)
        stuck.sendall(f"PUT /demo/packs/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx".encode())
        _wait_for_upload(tmp_path / "demo/tmp")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(15)
        idle.close()
        stuck.close()
    assert {p.name for p in (tmp_path / "demo/tmp").iterdir()} <= {f"part-{'0' * 64}"}


def test_full_disk_of_the_server(tmp_path: Path) -> None:
    """A limit on the size of files is the full disk that a test can have, and take away again."""
    store, commits = make_store(tmp_path / "other", 1)
    (pack_id,) = store.index.packs()
    data = store.layout.pack(pack_id).read_bytes()
    store.close()
    path = f"/demo/packs/{pack_id.hex()}"
    with serving(tmp_path / "root") as server:
        assert ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x").status == 201
        usual = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        answer = ask(server.url, "PUT", path, data)
        assert answer.status == 507
        assert answer.error
        assert list((tmp_path / "root/demo/tmp").iterdir()) == []
        assert ask(server.url, "GET", "/demo/info/packs").status == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, usual)
        assert ask(server.url, "PUT", path, data).status == 201
        assert ask(server.url, "POST", "/demo/has", commits[0]).body == b"\1"


def test_killed_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "demo", 2)
    packs = store.index.packs()
    store.close()
    with serving(tmp_path) as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
            client.sendall(f"PUT /demo/packs/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nx".encode())
            _wait_for_upload(tmp_path / "demo/tmp")
            server.kill()
    with serving(tmp_path) as server:
        assert ask(server.url, "POST", "/demo/has", commits[-1]).body == b"\1"
        assert len(packs_from_bytes(ask(server.url, "GET", "/demo/info/packs").body)) == len(packs)


def test_port_that_is_taken_and_root_that_is_a_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from shardfs.errors import StoreError; from shardfs.server.app import run\n"
        "try: run(Path(sys.argv[1]), port=int(sys.argv[2]))\n"
        "except StoreError as error: sys.exit(str(error))"
    )
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for root, expected in ((tmp_path, "cannot listen"), (tmp_path / "file", "cannot serve")):
            done = subprocess.run(
                [sys.executable, "-c", program, root, port], capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            assert done.stderr.startswith(expected)
            assert done.stderr.count("\n") == 1


def test_listening_for_everybody_who_may_write_draws_a_warning(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from shardfs.server.app import run\n"
        "from shardfs.server.access import Access; from shardfs.server.tokens import Permission\n"
        "stop = lambda line: os.kill(os.getpid(), signal.SIGTERM)\n"
        "access = Access(Path(sys.argv[1]), anonymous=Permission[sys.argv[3]])\n"
        "run(Path(sys.argv[1]), sys.argv[2], 0, access=access, announce=stop)"
    )
    for host, anonymous in (("0.0.0.0", "WRITE"), ("0.0.0.0", "READ"), ("127.0.0.1", "WRITE"), ("localhost", "ADMIN")):
        argv = [sys.executable, "-c", program, str(tmp_path), host, anonymous]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert ("may change everything" in done.stderr) is ((host, anonymous) == ("0.0.0.0", "WRITE"))
