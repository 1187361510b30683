"""Read a checkpoint through the mounts of shardfs and its peers.

    python -m tests.benchmarks.bench_mount [--repeats N] [--only NAME ...]

Four versions are stored, the last one is read. Cold: a fresh mount (no pages, no memory of the daemon) and
the store's pages dropped with POSIX_FADV_DONTNEED. Warm: the file is opened and read again. Every tool's
bytes are compared with the original.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.bench_commit import SERIES, make_series
from tests.benchmarks.measuring import (
    MB,
    drop_page_cache,
    machine,
    median,
    read_seconds,
    read_sha256,
    table,
    with_ratio,
)
from tests.benchmarks.tools import MOUNTABLE, Tool, commands, present

FILE = "model.safetensors"
TITLE = "fp32, two of six layers train"


@dataclass
class Times:
    """Seconds of every run of one tool."""

    ready: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)


def prepare(tool: type[Tool], files: list[Path], scratch: Path) -> Tool:
    """A store that holds all versions."""
    running = tool(scratch)
    running.do_create()
    for number, file in enumerate(files, start=1):
        shutil.copyfile(file, running.project / FILE)
        running.do_commit(number)
    return running


def measure(running: Tool, number: int, times: Times, digest: str) -> None:
    """One mount: ready, cold read, warm read, comparison."""
    drop_page_cache(running.scratch / running.store)
    start = time.perf_counter()
    try:
        path = running.do_mount(number) / FILE
        times.ready.append(time.perf_counter() - start)
        times.cold.append(read_seconds(path))
        times.warm.append(read_seconds(path))
        if read_sha256(path) != digest:
            raise SystemExit(f"{running.name}: the mount serves other bytes than were stored")
    finally:
        running.do_unmount()


def native(file: Path, repeats: int) -> Times:
    """The same reads of the plain file."""
    times = Times(ready=[0.0])
    for _ in range(repeats):
        drop_page_cache(file.parent)
        times.cold.append(read_seconds(file))
        times.warm.append(read_seconds(file))
    return times


def row(name: str, times: Times, base: Times | None, size: int) -> list[str]:
    """Medians of one tool beside those of shardfs; speeds in MB/s."""

    def speed(seconds: list[float]) -> float:
        return size / MB / median(seconds)

    return [
        name,
        f"{median(times.ready):.2f}" if any(times.ready) else "-",
        with_ratio(speed(times.cold), speed(base.cold) if base else None, 0),
        with_ratio(speed(times.warm), speed(base.warm) if base else None, 0),
    ]


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="names of tools")
    given = parser.parse_args()
    tools = [tool for tool in present(MOUNTABLE, to_mount=True) if not given.only or tool.name in given.only]
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        work = Path(name)
        files = make_series(work / "series", SERIES[TITLE])
        size, digest = files[-1].stat().st_size, read_sha256(files[-1])
        running = [prepare(tool, files, work / tool.name) for tool in tools]
        times = {tool.name: Times() for tool in tools}
        for _ in range(given.repeats):
            for tool in running:
                measure(tool, len(files), times[tool.name], digest)
        times["plain file"] = native(files[-1], given.repeats)
    print(f"## Read of a mounted checkpoint\n\n{machine()} of {given.repeats} runs. {TITLE}; {size / MB:.1f} MB.\n")
    head = ["", "mount ready, s", "cold read, MB/s", "second read, MB/s"]
    print(table(head, [row(name, taken, times.get("shardfs"), size) for name, taken in times.items()]) + "\n")
    print(commands(tools, to_mount=True))


if __name__ == "__main__":
    main()
