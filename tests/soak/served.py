"""A mounted daemon under test: begun, ended, killed and measured."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shardfs.mount import records, session
from shardfs.mount.options import MountOptions
from tests.mount.conftest import eventually


class Usage(NamedTuple):
    """What a process holds: bytes in memory, open descriptors, threads."""

    memory: int
    descriptors: int
    threads: int


# What a daemon may hold more than when it began, after everybody let it rest: its usual threads with their databases,
# and memory as in `soak.ALLOWED`.
AT_REST = Usage(memory=128 << 20, descriptors=48, threads=8)


class Served:
    """One mount of a repository.

    Attributes:
        alive: False from the moment when it is about to end until it can be used again.
        usages: measurements, of a daemon that never ended in between.
        begun: the measurement of the daemon when it had begun.
    """

    def __init__(self, point: Path, source: Path, branch: str) -> None:
        self.point = point
        self.source = source
        self.branch = branch
        self.alive = False
        self.usages: list[Usage] = []

    @property
    def staging(self) -> Path:
        return self.point / "staging"

    def begin(self) -> None:
        self.record = session.mount(self.point, self.source, MountOptions(branch=self.branch))
        self.usages.clear()
        self.begun = self._usage()
        self.alive = True

    def kill(self) -> None:
        """As a crash or the kernel's out-of-memory killer ends a daemon."""
        self.alive = False
        os.kill(self.record.pid, signal.SIGKILL)
        assert eventually(lambda: records.process_start(self.record.pid) is None, 20)

    def end(self) -> None:
        """As `shardfs umount --force` does."""
        self.alive = False
        session.unmount(self.point, force=True)

    def abort(self) -> None:
        """End a daemon that hangs; it writes what its threads do into its log."""
        os.kill(self.record.pid, signal.SIGABRT)

    def measure(self) -> None:
        self.usages.append(self._usage())

    def _usage(self) -> Usage:
        process = Path(f"/proc/{self.record.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        descriptors = len(os.listdir(process / "fd"))
        return Usage(int(status["VmRSS"].split()[0]) << 10, descriptors, int(status["Threads"]))

    def rest(self, within_s: float) -> Usage:
        """What it holds more than when it began, once it has nothing to do; waits until that is little."""

        def excess() -> Usage:
            return Usage(*(now - then for now, then in zip(self._usage(), self.begun, strict=True)))

        eventually(
            lambda: excess().threads <= AT_REST.threads and excess().descriptors <= AT_REST.descriptors, within_s
        )
        return excess()

    def growth(self) -> Usage | None:
        """Median of the last tenth of the measurements less that of the second; None when there are too few."""
        tenth = len(self.usages) // 10
        if not tenth:
            return None
        early, late = self.usages[tenth : 2 * tenth], self.usages[-tenth:]
        return Usage(*(int(b - a) for a, b in zip(_medians(early), _medians(late), strict=True)))


def _medians(usages: list[Usage]) -> Iterator[float]:
    return (statistics.median(values) for values in zip(*usages, strict=True))
