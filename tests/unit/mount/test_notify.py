"""What systemd hears, over a real socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.mount import notify


@pytest.fixture(params=["path", "abstract"])
def manager(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    name = str(tmp_path / "s") if request.param == "path" else f"@shardfs-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        door.settimeout(30)
        yield door


def test_words_arrive_in_one_message(manager: socket.socket) -> None:
    notify.send("READY=1", "STATUS=caf\udce9")
    assert manager.recv(1000) == b"READY=1\nSTATUS=caf\xe9"


def test_the_watchdog_hears_of_a_mount_that_answers(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    asked: list[float] = []

    def answers(timeout_s: float) -> bool:
        asked.append(timeout_s)
        return len(asked) in (3, 4)

    ended = threading.Event()
    notify.keep_alive(answers, ended)
    assert [manager.recv(1000) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    ended.set()
    assert asked[:4] == [0.01] * 4


@pytest.mark.parametrize(("interval", "pid"), [("", ""), ("0", ""), ("x", ""), ("1000000", "1")])
def test_no_watchdog(monkeypatch: pytest.MonkeyPatch, interval: str, pid: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", interval)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_s() is None
    notify.keep_alive(lambda _: pytest.fail("nobody asked"), threading.Event())


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify.send("READY=1")
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify.send("READY=1")
    assert "No such file" in caplog.text
