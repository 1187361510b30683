"""What whoever runs a server sees of it: health, metrics, the access log, and how it ends."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.nginx import MANUAL, replaced
from tests.prometheus import Family, parse
from tests.serving import Server, shardfs_serve
from tests.stores import make_store
from tests.unit.server.byhand import ask

pytestmark = pytest.mark.network


def metrics(server: Server) -> dict[str, Family]:
    answer = ask(server.url, "GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return parse(answer.body.decode())


def total(family: Family, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(value for key, value in family.samples.items() if labels.items() <= dict(key).items())


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "demo")
    path = max((p for p in store.layout.packs.rglob("*.pack")), key=lambda p: p.stat().st_size)
    url, size = f"/demo/packs/{path.parent.name}/{path.name}", path.stat().st_size
    store.close()
    with shardfs_serve(tmp_path) as server:
        for _ in range(3):
            assert len(ask(server.url, "GET", url).body) == size
        ask(server.url, "GET", url, Range="bytes=5-9")
        ask(server.url, "HEAD", url)
        ask(server.url, "GET", "/nothing/here/at/all")
        ask(server.url, "PATCH", "/demo/has")
        ask(server.url, "PUT", f"/demo/blocks/{'0' * 64}", b"x" * 1000)
        found = metrics(server)
    requests = found["shardfs_server_requests_total"]
    assert total(requests, endpoint="pack_file", method="GET", status="200") == 3
    assert total(requests, endpoint="pack_file", method="GET", status="206") == 1
    assert total(requests, endpoint="pack_file", method="HEAD", status="200") == 1
    assert total(requests, endpoint="block", method="PUT", status="400") == 1
    assert total(requests, endpoint="other", status="404") == 1
    assert total(requests, method="other", status="405") == 1
    seconds = found["shardfs_server_request_seconds"].samples
    counts = [
        value for key, value in seconds.items() if dict(key).get("") == "_bucket" and ("endpoint", "pack_file") in key
    ]
    assert counts == sorted(counts)
    assert counts[-1] == 5
    assert total(found["shardfs_server_sent_bytes_total"]) >= 3 * size
    assert total(found["shardfs_server_received_bytes_total"]) >= 1000
    assert total(found["shardfs_server_open_repositories"]) == 1
    assert total(found["process_resident_memory_bytes"]) > 10 << 20
    assert total(found["process_open_fds"]) > 5


def test_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    make_store(tmp_path / "root/demo")[0].close()
    with shardfs_serve(tmp_path / "root", "--access-log", str(log)) as server:
        ask(server.url, "GET", "/demo/info/refs?password=hunter2", Cookie="c00kie", User_Agent="tool")
        secret = "shardfs_" + "ab" * 6 + "_" + "cd" * 32
        ask(server.url, "GET", "/demo/info/packs", Authorization=f"Bearer {secret}")
        log.rename(tmp_path / "access.log.1")
        server.process.send_signal(signal.SIGHUP)
        for _ in range(400):
            if log.exists():
                break
            time.sleep(0.01)
        ask(server.url, "PUT", f"/demo/blocks/{'0' * 64}", b"12345")
    old, new = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (tmp_path / "access.log.1", log)
    )
    assert [line["status"] for line in (*old, *new)] == [200, 401, 400]
    assert old[0]["path"] == "/demo/info/refs"
    assert old[0]["endpoint"] == "info"
    assert old[0]["sent"] > 50
    assert old[0]["address"] == "127.0.0.1"
    assert old[0]["agent"] == "tool"
    assert 0 < old[0]["seconds"] < 60
    assert abs(old[0]["time"] - time.time()) < 600
    assert new[0]["received"] == 5
    everything = (tmp_path / "access.log.1").read_text() + log.read_text()
    for word in ("hunter2", "c00kie", secret, "cdcd"):
        assert word not in everything
    assert log.stat().st_mode & 0o777 == 0o600


def test_access_log_on_standard_output(tmp_path: Path) -> None:
    with shardfs_serve(tmp_path, "--access-log", "-") as server:
        ask(server.url, "GET", "/healthz")
        assert server.process.stdout is not None
        assert json.loads(server.process.stdout.readline())["path"] == "/healthz"


def connected(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def begin_upload(server: Server) -> socket.socket:
    client = connected(server)
    client.sendall(
        f"PUT /demo/packs/{'0' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\nx".encode()
    )
    for _ in range(400):
        if total(metrics(server)["shardfs_server_uploads_in_progress"]) == 1:
            return client
        time.sleep(0.01)
    raise AssertionError("upload did not begin")


def test_health_while_it_stops(tmp_path: Path) -> None:
    """A load balancer that holds a connection learns that it should look for another server."""
    with shardfs_serve(tmp_path, "--grace", "30") as server:
        parts = urlsplit(server.url)
        held = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        held.request("GET", "/healthz")
        assert json.loads(held.getresponse().read())["status"] == "ok"
        upload = begin_upload(server)
        server.process.send_signal(signal.SIGTERM)
        for _ in range(400):
            held.request("GET", "/healthz")
            answer = held.getresponse()
            if json.loads(answer.read())["status"] == "stopping":
                break
            time.sleep(0.01)
        assert answer.status == 503
        held.request("GET", "/demo/info/refs")
        answer = held.getresponse()
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        held.close()
        assert server.process.poll() is None
        upload.close()  # the last request in progress
        assert server.process.wait(20) == 0


def test_download_may_end(tmp_path: Path) -> None:
    data = bytes(32 << 20)
    make_store(tmp_path / "demo", 1)[0].close()
    pack = tmp_path / "demo/packs/00" / f"{'0' * 64}.pack"
    pack.parent.mkdir(exist_ok=True)
    pack.write_bytes(data)
    with shardfs_serve(tmp_path, "--grace", "30") as server, connected(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(
            f"GET /demo/packs/00/{pack.name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        got = len(client.recv(1000))
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        while piece := client.recv(1 << 20):
            got += len(piece)
        assert got > len(data)
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("stuck", ["upload", "download"])
def test_grace_is_not_for_ever(tmp_path: Path, stuck: str) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    pack = tmp_path / "demo/packs/00" / f"{'0' * 64}.pack"
    pack.parent.mkdir(exist_ok=True)
    pack.write_bytes(bytes(32 << 20))
    with shardfs_serve(tmp_path, "--grace", "0.3") as server:
        if stuck == "upload":
            client = begin_upload(server)
        else:
            client = connected(server)
            client.sendall(f"GET /demo/packs/00/{pack.name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        client.close()


def test_second_signal_does_not_wait(tmp_path: Path) -> None:
    with shardfs_serve(tmp_path, "--grace", "600") as server:
        client = begin_upload(server)
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            threading.Event().wait(0.3)
        assert server.process.wait(20) == 0
        client.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_of_the_manual(tmp_path: Path) -> None:
    """systemd knows every line of it; a unit that may do little is what it is for."""
    found = re.search(r"<!-- tested: systemd -->\n```ini\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert found is not None
    program = tmp_path / "shardfs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "shardfs.service"
    unit.write_text(replaced(found[1], {"/usr/local/bin/shardfs": str(program)}))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "shardfs.service" not in done.stderr, done.stderr
