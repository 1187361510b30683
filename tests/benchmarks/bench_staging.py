"""Write checkpoints into the staging area of a mount, and into a directory of the same disk.

    python -m tests.benchmarks.bench_staging [--mb N ...] [--repeats N] [--ways NAME ...] [--only write|rewrite]

Every write ends with fsync, which counts. Plain directory and ways to mount take turns; the ratio is that of the
medians. Rewriting: a file is committed, then 5 % of it are written in place, and it is committed again. Bytes are what
the daemon asked its kernel to read and write for the commit, its processor time is that of all its threads.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import shardfs
from shardfs.mount import session
from shardfs.mount.options import MountOptions
from tests.benchmarks.bench_engines import processor_seconds
from tests.benchmarks.measuring import MB, machine, median, table
from tests.benchmarks.synthetic import first

WAYS = {
    "kernel": MountOptions(engine="kernel"),
    "no-passthrough": MountOptions(engine="kernel", passthrough=False),
    "libfuse": MountOptions(engine="libfuse"),
}
PLAIN = "plain directory"
SHARE = 0.05
Writer = Callable[[Path], object]


def synced(write: Writer) -> Writer:
    """The same, and fsync."""

    def both(path: Path) -> None:
        write(path)
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    return both


def dd(source: Path, size: str) -> Writer:
    """Write with dd, so many bytes at a time."""
    return lambda path: subprocess.run(
        ["dd", f"if={source}", f"of={path}", f"bs={size}", "conv=fsync"], check=True, capture_output=True
    )


def writers(state: dict[str, Any], source: Path) -> dict[str, Writer]:
    """Programs that write a checkpoint."""
    return {
        "torch.save": synced(lambda path: torch.save(state, path)),
        "safetensors.save_file": synced(lambda path: safetensors.torch.save_file(state, path)),
        "cp": synced(lambda path: subprocess.run(["cp", source, path], check=True)),
        "dd bs=1M": dd(source, "1M"),
        "dd bs=128K": dd(source, "128K"),
    }


@contextmanager
def mounted(work: Path, way: str) -> Iterator[tuple[Path, int]]:
    """A fresh repository and its mount: the mount point and the daemon."""
    project, point = work / f"{way}-project", work / f"{way}-models"
    shardfs.init(project).close()
    record = session.mount(point, project, WAYS[way])
    try:
        yield point, record.pid
    finally:
        session.unmount(point, force=True)
        shutil.rmtree(project)


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def write_speeds(work: Path, state: dict[str, Any], source: Path, ways: list[str], repeats: int) -> None:
    """Print a table of MB/s."""
    size = source.stat().st_size
    rows = []
    for name, write in writers(state, source).items():
        taken: dict[str, list[float]] = defaultdict(list)
        for number in range(repeats + 1):  # the first one warms up
            for way in (PLAIN, *ways):
                once = write_once(work, way, write)
                taken[way] += [once] if number else []
        speed = {way: size / MB / median(several) for way, several in taken.items()}
        ratios = [f"{speed[way]:.0f} ({speed[way] / speed[PLAIN]:.2f}x)" for way in ways]
        rows.append([name, f"{speed[PLAIN]:.0f}", *ratios])
    print(table([f"{size / MB:.0f} MB, MB/s", PLAIN, *ways], rows) + "\n")


def write_once(work: Path, way: str, write: Writer) -> float:
    """Seconds of one write of a new file."""
    if way == PLAIN:
        path = work / "plain"
        try:
            return seconds(lambda: write(path))
        finally:
            path.unlink()
    with mounted(work, way) as (point, _):
        return seconds(lambda: write(point / "staging" / "checkpoint"))


def commit(point: Path, pid: int, what: str) -> list[str]:
    """Commit through the mount; a row of what it took."""
    before, cpu = transferred(pid), processor_seconds(pid)
    taken = seconds(lambda: (point / ".shardfs" / "commit").write_text(what))
    read, written = (after - start for start, after in zip(before, transferred(pid), strict=True))
    used = processor_seconds(pid) - cpu
    return [what, f"{taken:.2f}", f"{used:.2f}", f"{read / MB:.0f}", f"{written / MB:.0f}"]


def transferred(pid: int) -> tuple[int, int]:
    """Bytes that a process has read and written by system calls."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["rchar"]), int(fields["wchar"])


def write_share(path: Path, offsets: list[int], length: int) -> None:
    """Rewrite ranges in place, and make each durable."""
    data = os.urandom(1 << 20)
    fd = os.open(path, os.O_WRONLY)
    try:
        for offset in offsets:
            for position in range(offset, offset + length, len(data)):
                os.pwrite(fd, data[: offset + length - position], position)
            os.fsync(fd)
    finally:
        os.close(fd)


def rewrites(work: Path, source: Path, way: str) -> None:
    """Print what commits of a file take before and after changes in place."""
    size = source.stat().st_size
    share = round(SHARE * size)
    rows = []
    with mounted(work, way) as (point, pid):
        path = point / "staging" / "model.safetensors"
        shutil.copyfile(source, path)
        rows.append(["", *commit(point, pid, "first")])
        for what, offset in (("5 % in one place", size // 3), ("5 % at the end", size - share)):
            taken = seconds(partial(write_share, path, [offset], share))
            rows.append([f"{taken:.2f}", *commit(point, pid, what)])
        taken = seconds(lambda: write_share(path, [size * (2 * n + 1) // 100 for n in range(50)], share // 50))
        rows.append([f"{taken:.2f}", *commit(point, pid, "5 % in 50 places, fsync after each")])
        taken = seconds(lambda: shutil.copyfile(source, path))
        rows.append([f"{taken:.2f}", *commit(point, pid, "written anew, as it was first")])
    order = [1, 0, 2, 3, 4, 5]
    head = ["write, s", f"{way}, {size / MB:.0f} MB", "commit, s", "processor, s", "MB read", "MB written"]
    print(table([head[n] for n in order], [[row[n] for n in order] for row in rows]) + "\n")


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, nargs="+", default=[91, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--only", choices=("write", "rewrite"))
    given = parser.parse_args()
    torch.manual_seed(1)
    print(f"## Staging\n\n{machine()} of {given.repeats} runs.\n")
    for mb in given.mb:
        with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
            work = Path(name)
            state = first(mb * MB // 4, torch.float32)
            source = work / "source.safetensors"
            safetensors.torch.save_file(state, source)
            if given.only != "rewrite":
                write_speeds(work, state, source, given.ways, given.repeats)
            if given.only != "write":
                for way in given.ways:
                    rewrites(work, source, way)


if __name__ == "__main__":
    main()
