"""A server process of its own for a test."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import sys
from pathlib import Path
from shardfs.server.access import Access
from shardfs.server.app import run
from shardfs.server.process import Edge
from shardfs.server.tokens import Permission
allowed = [word.split("=")[1] for word in sys.argv if word.startswith("anonymous=")] or ["ADMIN"]
run(
    Path(sys.argv[1]),
    port=0,
    read_only="read-only" in sys.argv,
    create="no-create" not in sys.argv,
    access=Access(Path(sys.argv[1]), anonymous=Permission[allowed[-1]], trust_proxy="trust-proxy" in sys.argv),
    edge=Edge(grace_s=3),
)
"""


@dataclass
class Server:
    """A running server; `killed`: by the test, so that a clean stop is not expected."""

    url: str
    process: subprocess.Popen[str]
    killed: bool = False

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self.process.kill()


@contextmanager
def serving(root: Path, *flags: str) -> Iterator[Server]:
    """A server process of its own on a free port of the loopback interface; must stop cleanly on SIGTERM.

    Everybody may do everything there, unless a flag says `anonymous=NONE`, `READ` or `WRITE`.
    """
    with running([sys.executable, "-c", _PROGRAM, str(root), *flags]) as server:
        yield server


@contextmanager
def shardfs_serve(root: Path, *options: str) -> Iterator[Server]:
    """The same by the command, with its options."""
    command = [sys.executable, "-m", "shardfs_cli", "serve", "--root", str(root), "--listen", "127.0.0.1:0"]
    with running([*command, "--anonymous", "admin", *options]) as server:
        yield server


@contextmanager
def running(command: list[str]) -> Iterator[Server]:
    """A server by its command line, once it has said where it listens; must stop cleanly on SIGTERM."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("Serving "), line + process.stderr.read()
            server = Server(line.rsplit(" at ", 1)[1].strip().rstrip("/"), process)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                _, errors = process.communicate(timeout=20)
            finally:
                process.kill()
        assert server.killed or process.returncode == 0, errors
        assert "Traceback" not in errors, errors
