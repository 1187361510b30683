"""What a process takes of the machine, from /proc."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class ProcessUsage(NamedTuple):
    """What this process takes of the machine.

    Attributes:
        rss_bytes: memory that it has in RAM now.
        threads: threads now.
        descriptors: open descriptors now.
        cpu_s: seconds of processor time, those of ended threads included.
    """

    rss_bytes: int
    threads: int
    descriptors: int
    cpu_s: float


def usage() -> ProcessUsage:
    """What this process takes at this moment; 0 where /proc does not say."""
    return ProcessUsage(
        rss_bytes=rss_bytes(os.getpid()) or 0,
        threads=_count(Path("/proc/self/task")),
        descriptors=_count(Path("/proc/self/fd")),
        cpu_s=round(time.process_time(), 3),
    )


def rss_bytes(pid: int) -> int | None:
    """Memory that a process has in RAM; None when it is gone."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return None


def _count(folder: Path) -> int:
    with suppress(OSError):
        return len(os.listdir(folder))  # noqa: PTH208 - names alone
    return 0
