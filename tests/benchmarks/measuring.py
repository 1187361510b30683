"""Run programs and read files with a clock in hand; print Markdown tables."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MB = 1_000_000
COMMAND_DEADLINE_S = 300
READ_DEADLINE_S = 120

# Runs in a process of its own, so that a mount that hangs can be given up.
_READ_PROGRAM = """
import hashlib, os, sys, time
path, want_digest = sys.argv[1], sys.argv[2] == "digest"
buffer, digest = bytearray(1 << 20), hashlib.sha256()
start = time.perf_counter()
fd = os.open(path, os.O_RDONLY)
total = 0
while count := os.readv(fd, [buffer]):
    total += count
    if want_digest:
        digest.update(memoryview(buffer)[:count])
os.close(fd)
print(time.perf_counter() - start, total, digest.hexdigest())
"""


@dataclass(frozen=True)
class Cost:
    """What one step took.

    Attributes:
        seconds: on the wall.
        cpu_seconds: of all its processors.
        peak_rss: resident bytes of its largest process.
        written: bytes of the pages that it gave the kernel to write; 0 on file systems without a disk.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss: int = 0
    written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_rss, other.peak_rss),
            self.written + other.written,
        )


def run(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Cost:
    """Run a program to its end.

    The kernel counts the pages of the process that forks to the peak of its child, so this module
    imports nothing large: the floor of `peak_rss` is some 15 MB.

    Raises:
        SystemExit: the program failed; its output is shown.
    """
    log = cwd / ".bench-output"
    start = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace")
    log.unlink()
    if child.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit status {child.returncode}\n{said}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, usage.ru_oublock * 512)


def read_seconds(path: Path) -> float:
    """Seconds to open a file and read all of it, 1 MiB at a time."""
    return float(_read(path, "time")[0])


def read_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as this path serves them, in hex."""
    return _read(path, "digest")[2]


def _read(path: Path, mode: str) -> list[str]:
    argv = [sys.executable, "-S", "-c", _READ_PROGRAM, str(path), mode]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=READ_DEADLINE_S)
    return done.stdout.split()


def files_below(folder: Path) -> Iterable[Path]:
    """All regular files below a folder; links are not followed."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                yield path


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in files_below(folder))


def drop_page_cache(folder: Path) -> None:
    """Ask the kernel to forget the cached pages of all files below a folder (no root needed)."""
    os.sync()
    for path in files_below(folder):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def with_ratio(value: float, base: float | None, digits: int) -> str:
    """A number, and in brackets how many times the base it is."""
    return f"{value:.{digits}f}" + (f" ({value / base:.2f}x)" if base else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def invocation() -> str:
    """The command line of the running benchmark."""
    main = sys.modules["__main__"].__spec__
    return shlex.join(["python", "-m", main.name if main else sys.argv[0], *sys.argv[1:]])


def machine() -> str:
    """One line that says what the numbers were measured on."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024**2
    system = os.uname()
    return (
        f"{os.cpu_count()} cores, {memory} GiB of memory, {system.sysname} {system.release.split('-')[0]}, "
        f"Python {sys.version.split()[0]}; times are medians"
    )


__all__ = [
    "COMMAND_DEADLINE_S",
    "MB",
    "Cost",
    "drop_page_cache",
    "invocation",
    "machine",
    "median",
    "read_seconds",
    "read_sha256",
    "run",
    "size_of",
    "table",
    "with_ratio",
]
