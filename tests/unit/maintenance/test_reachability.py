"""Remotes that answer, refuse, or say nothing at all."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

from shardfs import config
from shardfs.maintenance import reachability
from shardfs.store.store import Store


def test_each_remote_is_asked_and_silence_ends(store: Store, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        ports = [server.getsockname()[1] for server in (silent, gone)]
        gone.close()
        remotes = {
            "good": str(store.layout.root),
            "missing": str(tmp_path / "nothing"),
            "silent": f"http://127.0.0.1:{ports[0]}/x",
            "refused": f"http://127.0.0.1:{ports[1]}/x",
        }
        settings = replace(config.load(None), remotes=remotes, deadline_s=0.5)
        begin = time.monotonic()
        found = {f.what.split()[1]: f for f in reachability.diagnose(settings)}
        assert time.monotonic() - begin < 60  # not for ever
    assert {name: f.level for name, f in found.items()} == {
        "good": "ok",
        "missing": "warning",
        "silent": "warning",
        "refused": "warning",
    }
    assert all(f.fix for f in found.values() if f.level == "warning")


def test_no_remotes() -> None:
    assert [f.level for f in reachability.diagnose(config.load(None))] == ["ok"]
