"""`shardfs serve` as a user starts it: with options of the command, a server that writes down what it sent, a cache."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import Server


@contextmanager
def command(*options: str | Path) -> Iterator[Server]:
    """`shardfs serve` on a free port of the loopback interface; must stop cleanly on SIGTERM."""
    words = [sys.executable, "-m", "shardfs_cli", "serve", "--listen", "127.0.0.1:0", *map(str, options)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
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


def sent_bytes(log: Path, endpoint: str = "pack_file") -> int:
    """Bytes that a server with --access-log has sent from one endpoint."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return sum(line["sent"] for line in lines if line.get("endpoint") == endpoint)
