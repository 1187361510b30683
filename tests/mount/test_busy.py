"""A mount all of whose workers wait: it still says how it is, and whoever is killed is let go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardfs.mount import probe
from shardfs.mount.kernel.workers import MOST
from tests.mount.conftest import eventually, make_project, mounting

pytestmark = pytest.mark.fuse

COUNT = MOST + 16
READERS = """
import sys, threading
paths = [f"{sys.argv[1]}/f{number}" for number in range(int(sys.argv[2]))]
for path in paths:
    threading.Thread(target=lambda path=path: open(path, "rb").read()).start()
"""


def test_a_mount_tells_how_it_is_while_every_worker_waits(tmp_path: Path) -> None:
    project = tmp_path / "project"
    make_project(project, {f"f{number}": os.urandom(1 << 16) for number in range(COUNT)})
    for pack in (project / ".shardfs" / "packs").rglob("*.pack"):
        if pack.stat().st_size > 1 << 20:
            pack.unlink()
            os.mkfifo(pack)  # reading it waits for ever
    with mounting(project, tmp_path / "models", tmp_path, engine="kernel") as mounted:
        stats = mounted.point / ".shardfs" / "stats.json"
        command = [sys.executable, "-S", "-c", READERS, str(mounted.latest), str(COUNT)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as readers:
            try:
                assert eventually(lambda: bool(json.loads(probe.read(stats, 10))["process"]["threads"] >= MOST), 30)
                assert probe.state(mounted.record, 10) == "alive"
            finally:
                readers.kill()
            readers.wait(10)
