"""The server that git-lfs is measured with does what such a server must, and is measured while it does."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.serving import Serving, serving
from tests.nginx import free_port

ROOT = Path(__file__).parents[3]
DATA = os.urandom(32 << 20)
OID = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Serving, str]]:
    port = free_port()
    argv = [sys.executable, "-m", "tests.benchmarks.lfs_server", "127.0.0.1", str(port), str(tmp_path / "objects")]
    with serving(argv, "127.0.0.1", port, {**os.environ, "PYTHONPATH": str(ROOT)}, tmp_path / "log") as found:
        yield found, f"http://127.0.0.1:{port}"


def ask(method: str, url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=20) as answer:
        body: bytes = answer.read()
        return body


def actions(url: str, operation: str) -> list[str]:
    asked = json.dumps({"operation": operation, "objects": [{"oid": OID, "size": len(DATA)}]}).encode()
    [answered] = json.loads(ask("POST", f"{url}/objects/batch", asked))["objects"]
    return list(answered["actions"])


@pytest.mark.network
def test_objects_come_back_and_are_sent_once(server: tuple[Serving, str]) -> None:
    measured, url = server
    measured.reset()
    assert actions(url, "upload") == ["upload"]
    with pytest.raises(urllib.error.HTTPError, match="422"):
        ask("PUT", f"{url}/{OID}", DATA[1:])
    ask("PUT", f"{url}/{OID}", DATA)
    assert ask("GET", f"{url}/{OID}") == DATA
    assert actions(url, "upload") == []
    assert actions(url, "download") == ["download"]
    costs = measured.costs()
    assert costs.cpu_seconds > 0
    assert costs.peak_rss > 10 << 20
