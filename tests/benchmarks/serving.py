"""A server process at the far end of a link, and what it costs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_S = 30
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Costs:
    """What a process used: seconds of processors, and resident bytes at most."""

    cpu_seconds: float
    peak_rss: int


class Serving:
    """A server under measurement."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self._cpu = self._now()
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak becomes what is resident now

    def costs(self) -> Costs:
        """What it and its children used since."""
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in self._pids())
        rss = sum(int(status.split("VmHWM:")[1].split()[0]) for status in statuses)
        return Costs(self._now() - self._cpu, rss << 10)

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text()
        return [self._pid, *map(int, children.split())]

    def _now(self) -> float:
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._pids())
        return sum(int(ticks) for fields in stats for ticks in fields[11:13]) / _TICKS


@contextmanager
def serving(
    argv: Sequence[str], address: str, port: int, environment: Mapping[str, str], log: Path, prefix: Sequence[str] = ()
) -> Iterator[Serving]:
    """Run a server until the end of the block; begins when it takes connections.

    Args:
        argv: the command.
        address, port: where it listens.
        environment: of the command.
        log: where its output goes.
        prefix: puts programs where the server is; it replaces itself by what follows.

    Raises:
        SystemExit: it does not listen in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen([*prefix, *argv], stdout=output, stderr=output, env=environment)
    try:
        probe = ["python3", "-c", f"import socket; socket.create_connection(({address!r}, {port}), 1)"]
        deadline = time.monotonic() + READY_S
        while not _listens(address, port, [*prefix, *probe] if prefix else []):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(argv)}: does not listen\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield Serving(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()


def _listens(address: str, port: int, probe: Sequence[str]) -> bool:
    if probe:
        return subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode == 0
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True
