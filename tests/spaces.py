"""Machines on one machine: network namespaces around a server, each with a cable to it of its own. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.link import missing

__all__ = ["Machine", "missing", "star"]


@dataclass(frozen=True)
class Machine:
    """A namespace.

    Attributes:
        run: what to put before a command to run it there.
        address: of the server, as it is seen from there.
    """

    run: Sequence[str]
    address: str


@contextmanager
def star(clients: int) -> Iterator[tuple[Machine, list[Machine]]]:
    """A server's machine and those of its clients; nothing of them stays behind.

    Raises:
        subprocess.CalledProcessError: the system refuses a part of it.
    """
    names = [f"shardfs-{os.getpid()}-{place}" for place in ("hub", *range(clients))]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        machines = [Machine(_inside(names[0]), "0.0.0.0")]
        for number, name in enumerate(names[1:]):
            cable = f"cable{number}"
            _ip("-n", names[0], "link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", name)
            for space, device, end in ((names[0], cable, 1), (name, "cable", 2)):
                _ip("-n", space, "addr", "add", f"10.213.{100 + number}.{end}/24", "dev", device)
                _ip("-n", space, "link", "set", device, "up")
            machines.append(Machine(_inside(name), f"10.213.{100 + number}.1"))
        yield machines[0], machines[1:]
    finally:
        for name in names:
            if Path("/run/netns", name).exists():
                _ip("netns", "del", name)


def _inside(name: str) -> tuple[str, ...]:
    return ("nsenter", f"--net=/run/netns/{name}")


def _ip(*argv: str) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(["ip", *argv], check=True, capture_output=True, env={**os.environ, "PATH": path})
