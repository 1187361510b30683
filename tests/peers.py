"""`shardfs serve` as a user starts it: with options of the command, a server that writes down what it sent, a cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import Server, running


@contextmanager
def command(*options: str | Path) -> Iterator[Server]:
    """`shardfs serve` on a free port of the loopback interface; must stop cleanly on SIGTERM."""
    words = [sys.executable, "-m", "shardfs_cli", "serve", "--listen", "127.0.0.1:0", *map(str, options)]
    with running(words) as server:
        yield server


def sent_bytes(log: Path, endpoint: str = "pack_file") -> int:
    """Bytes that a server with --access-log has sent from one endpoint."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return sum(line["sent"] for line in lines if line.get("endpoint") == endpoint)
