"""A slow link on one machine: two network namespaces and between them a program that delays packets (link.c).

Needs root, /dev/net/tun, `ip` and a C compiler; not netem, which kernels of virtual machines often lack. Programs are
put into a namespace with `nsenter`, which leaves mounts as they are; `ip netns exec` would hide those that they make.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DELAY_MS = 10  # each way
RATE = 1_000_000_000  # bits per second
QUEUE = 8 << 20  # bytes; 64 ms at that rate
PROGRAM = Path(__file__).with_suffix(".c")
_DEVICE = "link0"


@dataclass(frozen=True)
class Link:
    """The two ends of the link.

    Attributes:
        server, client: what to put before a command to run it at that end.
        address: of the server's end.
    """

    server: Sequence[str]
    client: Sequence[str]
    address: str
    _client_space: str

    def received(self) -> int:
        """Bytes that came to the client so far; of the headers of a burst only one is counted."""
        return self._count("rx")

    def sent(self) -> int:
        """Bytes that the client sent so far, counted the same way."""
        return self._count("tx")

    def _count(self, way: str) -> int:
        said = _run("ip", "-n", self._client_space, "-s", "-j", "link", "show", "dev", _DEVICE)
        return int(json.loads(said)[0]["stats64"][way]["bytes"])


def missing() -> str:
    """Why there can be no link here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [name for name in ("ip", "nsenter", "cc") if shutil.which(name, path=_path()) is None]
    absent += [] if Path("/dev/net/tun").exists() else ["/dev/net/tun"]
    return f"{', '.join(absent)} not found" if absent else ""


@contextmanager
def slow_link(delay_ms: float = DELAY_MS) -> Iterator[Link]:
    """A link for the block, with this delay each way; whatever happens, nothing of it stays behind.

    Raises:
        SystemExit: the system refuses a part of it.
    """
    server, client = (f"shardfs-{end}-{os.getpid()}" for end in ("server", "client"))
    address, other = "10.213.77.1", "10.213.77.2"
    with tempfile.TemporaryDirectory(prefix="shardfs-link-") as folder:
        carrier = Path(folder, "link")
        _run("cc", "-O2", "-pthread", "-o", str(carrier), str(PROGRAM))
        try:
            for space in (server, client):
                _run("ip", "netns", "add", space)
            argv = [str(carrier), server, client, _DEVICE, str(round(delay_ms * 1000)), str(RATE), str(QUEUE)]
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise SystemExit("the program between the namespaces does not run")
                for space, own in ((server, address), (client, other)):
                    _run("ip", "-n", space, "addr", "add", f"{own}/24", "dev", _DEVICE)
                    _run("ip", "-n", space, "link", "set", _DEVICE, "up")
                    _run("ip", "-n", space, "link", "set", "lo", "up")
                inside = [("nsenter", f"--net=/run/netns/{space}") for space in (server, client)]
                try:
                    yield Link(inside[0], inside[1], address, client)
                finally:
                    process.stdin.close()
        finally:
            for space in (server, client):
                if Path("/run/netns", space).exists():
                    _run("ip", "netns", "del", space)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env={**os.environ, "PATH": _path()})
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
