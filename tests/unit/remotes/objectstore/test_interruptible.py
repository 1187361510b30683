from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from shardfs.config import Settings
from shardfs.remotes.objectstore.places import open_object_store


def test_an_interrupt_does_not_wait_for_a_silent_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        remote = open_object_store("s3://bucket/demo", "origin", Settings("A <a@b>", Path("/nowhere"), deadline_s=4.0))
        clients: list[socket.socket] = []

        def interrupt() -> None:
            client = silent.accept()[0]
            clients.append(client)
            client.recv(1 << 16)
            os.kill(os.getpid(), signal.SIGINT)

        waiting = threading.Thread(target=interrupt)
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            remote.refs()
        waiting.join()
        clients[0].setblocking(False)
        with pytest.raises(BlockingIOError):  # the request is still on its way: nobody has given it up yet
            clients[0].recv(1)
        clients[0].close()
