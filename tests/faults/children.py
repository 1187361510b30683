"""Run something in a forked child: as cheap as a call, as separate as a program.

The caller must have no threads: a child has copies of their locks and not of them.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; minus the signal that killed it; None when it took too long, which was its end.
        said: all that it wrote, to standard output and error.
        seconds: from fork to end.
        peak_rss: resident bytes, at most.
    """

    status: int | None
    said: str
    seconds: float
    peak_rss: int


class Child:
    """A forked child at work.

    Args:
        work: what it does; what comes back is its exit status.
        log: where its output goes.
        environment: variables that it has besides.
    """

    def __init__(self, work: Callable[[], int], log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        self._begin = time.monotonic()
        log.write_bytes(b"")  # who is killed at once says nothing
        self.pid = os.fork()
        if self.pid == 0:
            _be(work, log, environment)

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, limit_s: float) -> Ended:
        """Its end; one that does not come in time is made, with the stacks of all threads in `said`."""
        fd = os.pidfd_open(self.pid)
        try:
            in_time = bool(select.select([fd], [], [], limit_s)[0])
            if not in_time:
                os.kill(self.pid, signal.SIGABRT)
                if not select.select([fd], [], [], 5)[0]:
                    self.kill()
        finally:
            os.close(fd)
        _, status, usage = os.wait4(self.pid, 0)
        seconds = time.monotonic() - self._begin
        code = os.waitstatus_to_exitcode(status) if in_time else None
        return Ended(code, self._log.read_text("utf-8", "replace"), seconds, usage.ru_maxrss << 10)


def command(*argv: str) -> int:
    """Run a command line of `shardfs` in this process; its exit status."""
    from shardfs_cli.main import cli

    try:
        cli.main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def checking(check: Callable[[], Sequence[str]]) -> Callable[[], int]:
    """Work that prints what a check found; the exit status is 1 when that is something."""

    def work() -> int:
        found = check()
        print("\n".join(found))
        return 1 if found else 0

    return work


def _be(work: Callable[[], int], log: Path, environment: Mapping[str, str]) -> NoReturn:
    status = 70
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        faulthandler.enable(file=2)
        os.environ.update(environment)
        status = work()
    except BaseException:  # noqa: BLE001 - the outermost edge of the child
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
