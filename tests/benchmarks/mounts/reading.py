"""Read a stored checkpoint in every way through every mount."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.benchmarks.measuring import MB, drop_page_cache, median, read_sha256
from tests.benchmarks.mounts import daemons
from tests.benchmarks.mounts.loading import Loader
from tests.benchmarks.mounts.patterns import Patterns
from tests.benchmarks.mounts.subjects import SAFETENSORS, TORCH, Subject
from tests.benchmarks.tools import Tool

ENOUGH_S = 5.0  # a tool that spent this long on a row is not asked again
THREADS = 8
READS = 2048  # random ones, of all threads together

State = Literal["cold", "hot"]
STATES: tuple[State, ...] = ("cold", "hot")


@dataclass(frozen=True)
class Instruments:
    """The programs that read."""

    patterns: Patterns
    loader: Loader


@dataclass(frozen=True)
class Row:
    """One way to read.

    Attributes:
        title: its name in tables.
        unit: of what the tables show: "MB/s", "1000/s" of reads, or "ms".
        file: the one that is read; None for any.
        run: reads once; returns seconds.
    """

    title: str
    unit: str
    file: str | None
    run: Callable[[Instruments, Path], float]

    def value(self, seconds: float, size: int) -> float:
        """Seconds in the unit of the row."""
        return {"MB/s": size / MB / seconds, "1000/s": READS / seconds / 1000, "ms": seconds * 1000}[self.unit]


def _load(title: str, how: str, file: str) -> Row:
    return Row(title, "ms", file, lambda using, path: using.loader.seconds(how, path))


SEQUENTIAL = Row("1 MiB", "MB/s", None, lambda using, path: using.patterns.seconds("sequential", path))
THREADED = Row(f"{THREADS} threads", "MB/s", None, lambda u, path: u.patterns.seconds("threads", path, THREADS))
RANDOM = Row("4 KiB random", "1000/s", None, lambda using, path: using.patterns.seconds("random", path, READS))
FAULTS = Row(
    f"mmap faults, {THREADS} threads",
    "1000/s",
    None,
    lambda using, path: using.patterns.seconds("faults", path, THREADS, READS // THREADS),
)
TORCH_LOAD = _load("torch.load", "torch.load", TORCH)
TORCH_MAPPED = _load("torch.load, mmap", "torch.load, mmap", TORCH)
LOAD_FILE = _load("load_file", "load_file", SAFETENSORS)
ONE_TENSOR = _load("safe_open, one tensor", "safe_open, one tensor", SAFETENSORS)
ROWS = (SEQUENTIAL, THREADED, RANDOM, FAULTS, TORCH_LOAD, TORCH_MAPPED, LOAD_FILE, ONE_TENSOR)
LARGE_ROWS = (SEQUENTIAL, THREADED, FAULTS, TORCH_MAPPED)


@dataclass
class Results:
    """What was measured of one subject: by tool, and where it depends on that, by row and state."""

    subject: Subject
    rows: Sequence[Row]
    seconds: dict[tuple[str, str, State], list[float]] = field(default_factory=lambda: defaultdict(list))
    ready: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    idle: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    peak: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    stored: dict[str, int] = field(default_factory=dict)

    def file(self, row: Row) -> str:
        """The name of the file that a row reads."""
        return row.file or next(iter(self.subject.newest))

    def value(self, tool: str, row: Row, state: State) -> float | None:
        """The median in the unit of the row; None when it was not measured."""
        seconds = self.seconds.get((tool, row.title, state))
        return row.value(median(seconds), self.subject.newest[self.file(row)].stat().st_size) if seconds else None


def store(tool: type[Tool], subject: Subject, scratch: Path) -> Tool:
    """A store of all versions."""
    running = tool(scratch)
    running.do_create()
    for number, files in enumerate(subject.versions, start=1):
        for name, source in files.items():
            shutil.copyfile(source, running.project / name)
        running.do_commit(number)
    running.do_finish()
    for name in subject.newest:
        (running.project / name).unlink()
    subprocess.run(["sync", "-f", str(scratch)], check=True)
    return running


def measure(
    subject: Subject, rows: Sequence[Row], tools: Sequence[type[Tool]], using: Instruments, repeats: int, work: Path
) -> Results:
    """All rows of all tools, which take turns so that a busy minute hits them alike."""
    rows = [row for row in rows if row.file is None or row.file in subject.newest]
    results = Results(subject, rows)
    digests = {name: read_sha256(path) for name, path in subject.newest.items()}
    running = []
    for number, tool in enumerate(tools):
        print(f"{subject.title}: storing with {tool.name}", file=sys.stderr)
        running.append(store(tool, subject, work / str(number)))
        results.stored[tool.name] = running[-1].stored()
    for row in rows:
        print(f"{subject.title}: {row.title}", file=sys.stderr)
        for _ in range(repeats):
            for each in running:
                _read(each, row, results, using)
    for each in running:
        _compare(each, len(subject.versions), digests)
    return results


def _read(running: Tool, row: Row, results: Results, using: Instruments) -> None:
    """One mount, one cold and one hot run."""
    key = running.name, row.title
    if sum(results.seconds[*key, "cold"]) + sum(results.seconds[*key, "hot"]) > ENOUGH_S:
        return
    running.reset()
    drop_page_cache(running.scratch)
    start = time.perf_counter()
    try:
        folder = running.do_mount(len(results.subject.versions))
        results.ready[running.name].append(time.perf_counter() - start)
        running.settle(folder)
        path = folder / results.file(row)
        pids = daemons.of_home(running.scratch / "home")
        results.idle[running.name].append(daemons.resident(pids))
        results.seconds[*key, "cold"].append(row.run(using, path))
        results.seconds[*key, "hot"].append(row.run(using, path))
        results.peak[running.name] = max(results.peak[running.name], daemons.resident(pids, "VmHWM"))
    finally:
        running.do_unmount()


def _compare(running: Tool, number: int, digests: dict[str, str]) -> None:
    """Compare every byte with the original, once read by the daemon and once from the pages of the kernel."""
    try:
        folder = running.do_mount(number)
        for name, digest in [*digests.items(), *digests.items()]:
            if read_sha256(folder / name) != digest:
                raise SystemExit(f"{running.name}: the mount serves other bytes of {name} than were stored")
    finally:
        running.do_unmount()
