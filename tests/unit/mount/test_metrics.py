"""The page for Prometheus, read as strictly as its format is defined, and the server of it."""

from __future__ import annotations

import re
import socket
import threading
import urllib.error
import urllib.request
from typing import NamedTuple

import pytest

from shardfs.errors import MountError, UsageError
from shardfs.mount import metrics
from shardfs.mount.exporter import Exporter
from shardfs.mount.operating import address
from shardfs.mount.vfs import Vfs
from tests.memory_repository import content
from tests.prometheus import parse


class Part(NamedTuple):
    """A part.

    Attributes:
        done_bytes: bytes that were
            done; of all kinds.
        waited_s: seconds of waiting.
        kept: things kept now.
        requests: by kind.
        name: no number.
    """

    done_bytes: int
    waited_s: float
    kept: int
    requests: dict[str, int]
    name: str


def test_names_kinds_and_descriptions_come_from_the_parts() -> None:
    part = Part(7, 0.25, 3, {"read": 1, 'odd "name"\\': 2}, "text")
    page = metrics.text({"part": part, "uptime_s": 1.5, "plain": {"count": 4, "ok": True}}, {"mountpoint": "/a\nb"})
    found = parse(page)
    assert {name: (family.kind, family.samples) for name, family in found.items()} == {
        "shardfs_mount_info": ("gauge", {(("mountpoint", "/a\nb"),): 1}),
        "shardfs_part_done_bytes_total": ("counter", {(): 7}),
        "shardfs_part_waited_seconds_total": ("counter", {(): 0.25}),
        "shardfs_part_kept": ("gauge", {(): 3}),
        "shardfs_part_requests_total": (
            "counter",
            {(("operation", "read"),): 1, (("operation", 'odd "name"\\'),): 2},
        ),
        "shardfs_uptime_seconds": ("gauge", {(): 1.5}),
        "shardfs_plain_count": ("gauge", {(): 4}),
    }
    assert found["shardfs_part_done_bytes_total"].help == "bytes that were done; of all kinds."


def test_counters_of_a_mount(vfs: Vfs) -> None:
    content(vfs, b".shardfs/errors")
    found = parse(metrics.text(vfs.stats.snapshot(), {}))
    assert found["shardfs_mount_requests_total"].samples[(("operation", "open"),)] == 1
    assert found["shardfs_mount_open_files"].kind == "gauge"
    assert found["shardfs_process_rss_bytes"].samples[()] > 1 << 20


def get(exporter: Exporter, path: str) -> tuple[int, str, str]:
    host, port = exporter.address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_pages() -> None:
    well = threading.Event()
    exporter = Exporter(address("0"), lambda: "page caf\udce9\n", well.is_set)
    try:
        assert exporter.address[0] == "127.0.0.1"
        assert get(exporter, "/metrics?x=1") == (200, "text/plain; version=0.0.4; charset=utf-8", "page caf\\udce9\n")
        assert get(exporter, "/healthz")[0] == 503
        well.set()
        assert get(exporter, "/healthz")[0] == 200
        assert get(exporter, "/")[0] == 404
        with pytest.raises(MountError, match=r"cannot serve metrics at 127\.0\.0\.1:"):
            Exporter(exporter.address, lambda: "", lambda: True)
        with socket.create_connection(exporter.address) as rude:
            rude.sendall(b"\0\r\n\r\n")
            assert re.match(rb".*400", rude.recv(1000), re.DOTALL)
        assert get(exporter, "/healthz")[0] == 200
    finally:
        exporter.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(exporter.address)


@pytest.mark.parametrize(
    ("text", "found"),
    [("9750", ("127.0.0.1", 9750)), ("0.0.0.0:0", ("0.0.0.0", 0)), ("[::1]:5", ("::1", 5)), (":5", ("127.0.0.1", 5))],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize("text", ["", "x", "host:", "host:x", "1:2:3", "host:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        address(text)
