"""Read checkpoints, trees and histories through the mounts of shardfs and its peers.

    python -m tests.benchmarks.bench_mount [--quick] [--series FOLDER] [--repeats N] [--only NAME ...] [--part PART ...]

Cold: a fresh mount, whose daemon remembers nothing, over a store whose pages were dropped from the page cache with
POSIX_FADV_DONTNEED. Hot: the same once more, with everything opened again. The bytes of every mount are compared with
the original. A row of a tool is measured up to --repeats times, but not again once it took 5 s. --quick runs everything
once and leaves out what needs a model in training or 1 GB.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.measuring import MB, invocation, machine
from tests.benchmarks.mounts import listing, peers, reading, reports, scale, subjects, targets
from tests.benchmarks.mounts.loading import Loader
from tests.benchmarks.mounts.patterns import Patterns
from tests.benchmarks.tools import Tool, commands, present

REPEATS = 3
# Rows and tools that tell something new about a subject; a version that is no difference gains nothing by optimize.
UNCHAINED = tuple(tool for tool in peers.ALL if tool is not peers.Optimized)
PARTS = {
    "small": (subjects.small, reading.ROWS, UNCHAINED),
    "tuned": (
        subjects.tuned,
        (reading.SEQUENTIAL, reading.FAULTS, reading.LOAD_FILE, reading.ONE_TENSOR),
        peers.ALL,
    ),
    "large": (subjects.large, reading.LARGE_ROWS, UNCHAINED),
}
QUICK = ("small", "lists", "scale")


def read(part: str, series: Path, there: Sequence[type[Tool]], repeats: int) -> list[targets.Check]:
    """Measure one checkpoint and print its tables."""
    make, rows, wanted = PARTS[part]
    tools = [tool for tool in wanted if tool in there]
    subject = make(series)
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name, Loader() as loader:
        work = Path(name)
        using = reading.Instruments(Patterns.build(work), loader)
        results = reading.measure(subject, rows, tools, using, repeats, work)
    sizes = ", ".join(f"{file.stat().st_size / MB:.1f} MB" for file in subject.newest.values())
    print(f"### {subject.title} ({sizes})\n")
    for state in reading.STATES:
        print(reports.speeds(results, tools, state) + "\n")
    print(reports.costs(results, tools) + "\n", flush=True)
    return list(targets.of_reads(results))


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--series", type=Path, default=Path("build/series"), help="checkpoints, made when missing")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--only", nargs="+", default=[], help="names of tools")
    parser.add_argument("--part", nargs="+", choices=(*PARTS, "lists", "scale"))
    given = parser.parse_args()
    repeats = given.repeats or (1 if given.quick else REPEATS)
    parts = given.part or (QUICK if given.quick else (*PARTS, "lists", "scale"))
    given.series.mkdir(parents=True, exist_ok=True)
    there = [tool for tool in present(peers.ALL, to_mount=True) if not given.only or tool.name in given.only]
    checks: list[targets.Check] = []
    print(f"## Reads through mounts\n\n{machine()} of up to {repeats} runs. Made by `{invocation()}`.\n", flush=True)
    for part in PARTS:
        if part in parts:
            checks += read(part, given.series, there, repeats)
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        if "lists" in parts:
            text, times = listing.report(repeats, Path(name), given.only)
            print(f"### Listings\n\n`ls -lR` of versions of 500 files; `ls -l` and `ls` of a directory.\n\n{text}\n")
            checks += targets.of_lists(times)
        if "scale" in parts:
            text, found = scale.report(repeats, Path(name))
            print(f"### Large repositories\n\n{text}\n")
            checks += targets.of_scale(found)
    print(f"### Targets\n\n{targets.report(checks)}\n\n{commands(there, to_mount=True)}")


if __name__ == "__main__":
    main()
