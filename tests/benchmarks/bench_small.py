"""Commit many small files with shardfs and its peers, then ask what changed when nothing did.

    python -m tests.benchmarks.bench_small [--quick] [--repeats N] [--only NAME ...] [--folder N]

100 000 files of 10 KB that do not compress (10 000 with --quick), 1000 in a directory. The first commit is durable:
`sync -f` is part of its time. Beside the tools stands what reading the files takes: by `tar`, and by a loop that hashes
each. Metadata is what a tool keeps beyond the bytes of the files.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measuring import Cost, files_below, invocation, machine, median, run, table, with_ratio
from tests.benchmarks.tools import Borg, Restic, Shardfs, Tool, present

COUNT, QUICK_COUNT = 100_000, 10_000
FILE_SIZE = 10_000

_HASHING_LOOP = """
import os, sys
from blake3 import blake3
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        fd = os.open(f"{folder}/{name}", os.O_RDONLY)
        blake3(os.read(fd, 1 << 20)).digest()
        os.close(fd)
"""


class Git(Tool):
    """git alone: its objects are files, one each, until it packs them."""

    name = "git"
    programs = ("git",)
    version_of = "git --version"
    store = "project/.git"
    create = ("git -C project init -q",)
    commit = ("git -C project add .", "git -C project commit -q -m v$N")


@dataclass(frozen=True)
class Commands:
    """What is measured of one tool besides its commit; empty where it has no such command."""

    tool: type[Tool]
    start: str
    status: str
    again: tuple[str, ...]


MEASURED = (
    Commands(
        Shardfs,
        "shardfs --version",
        "shardfs -C project status",
        ("shardfs -C project add .", "shardfs -C project commit --allow-empty -m again"),
    ),
    Commands(
        Git,
        "git --version",
        "git -C project status",
        ("git -C project add .", "git -C project commit -q --allow-empty -m again"),
    ),
    Commands(Borg, "borg --version", "", ("borg create --compression zstd,3 store::again project",)),
    Commands(Restic, "restic version", "", Restic.commit),
)


@dataclass(frozen=True)
class Result:
    """One run of one tool; the second status finds what the first one left."""

    start: Cost
    commit: Cost
    status: Cost
    status_again: Cost
    again: Cost
    metadata: float  # bytes beyond those of the files, for each of theirs
    files: int  # in the store


def make_files(root: Path, count: int, per_folder: int) -> None:
    """The same files every time."""
    numbers = random.Random(10)
    for number in range(count):
        folder = root / f"{number // per_folder:04d}"
        if number % per_folder == 0:
            folder.mkdir(parents=True)
        (folder / f"sample-{number:06d}.bin").write_bytes(numbers.randbytes(FILE_SIZE))


def measure(commands: Commands, files: Path, scratch: Path) -> Result:
    """All steps with a new store."""
    running = commands.tool(scratch)
    shutil.copytree(files, running.project, dirs_exist_ok=True)
    running.do_create()
    subprocess.run(["sync", "-f", str(scratch)], check=True)

    def step(*lines: str) -> Cost:
        costs = (run(shlex.split(line), scratch, running.environment()) for line in lines if line)
        return sum(costs, start=Cost())

    commit = running.do_commit(1)
    stored = [path.stat().st_size for path in files_below(scratch / running.store)]
    plain = sum(path.stat().st_size for path in files_below(files))
    return Result(
        step(commands.start),
        commit,
        step(commands.status),
        step(commands.status),
        step(*commands.again),
        (sum(stored) - plain) / plain,
        len(stored),
    )


def reading(files: Path, repeats: int) -> list[list[str]]:
    """Rows for what reading alone takes, after a first time that is not counted."""
    ways = {
        "tar c \\| cat": ["sh", "-c", 'tar c -C "$1" . | cat > /dev/null', "sh", str(files)],
        "open, read, BLAKE3": [sys.executable, "-c", _HASHING_LOOP, str(files)],
    }
    rows = []
    for name, argv in ways.items():
        subprocess.run(argv, check=True)
        costs = [run(argv, files.parent, os.environ) for _ in range(repeats)]
        seconds, cpu = median(cost.seconds for cost in costs), median(cost.cpu_seconds for cost in costs)
        rows.append([name, "-", f"{seconds:.2f}", f"{cpu:.2f}", *["-"] * 5])
    return rows


def row(name: str, results: list[Result], base: list[Result] | None) -> list[str]:
    """Medians of one tool's runs beside those of shardfs."""

    def medians(runs: list[Result]) -> list[float]:
        return [
            median(run.start.seconds for run in runs),
            median(run.commit.seconds for run in runs),
            median(run.commit.cpu_seconds for run in runs),
            median(run.status.seconds for run in runs),
            median(run.status_again.seconds for run in runs),
            median(run.again.seconds for run in runs),
        ]

    reference = medians(base) if base else [None] * 6
    cells = [
        with_ratio(value, other, 2) if value else "-" for value, other in zip(medians(results), reference, strict=True)
    ]
    metadata = median(run.metadata for run in results) * 100
    return [name, *cells, f"{metadata:.1f}", str(int(median(run.files for run in results)))]


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_COUNT} files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of tools")
    parser.add_argument("--folder", type=int, default=1000, help="files in a directory")
    given = parser.parse_args()
    count = QUICK_COUNT if given.quick else COUNT
    tools = present(tuple(each.tool for each in MEASURED))
    chosen = [each for each in MEASURED if each.tool in tools and (not given.only or each.tool.name in given.only)]
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        work = Path(name)
        make_files(work / "files", count, given.folder)
        time.sleep(1)  # nothing is as new as a file that was just written
        results: dict[str, list[Result]] = {each.tool.name: [] for each in chosen}
        for _ in range(given.repeats):  # all tools in turn, so that a busy minute hits them alike
            for each in chosen:
                results[each.tool.name].append(measure(each, work / "files", work / "scratch"))
                shutil.rmtree(work / "scratch")
        rows = [row(tool, runs, results.get("shardfs")) for tool, runs in results.items()]
        rows += reading(work / "files", given.repeats)
    print(f"## {count} files of {FILE_SIZE // 1000} KB\n")
    print(f"`{invocation()}`: {machine()} of {given.repeats} runs.\n")
    head = ["", "start, s", "first commit, s", "its CPU, s", "status, s", "status again, s", "unchanged commit, s"]
    print(table([*head, "metadata, %", "files in the store"], rows) + "\n")
    for each in chosen:
        lines = [*each.tool.create, *each.tool.commit, each.status, *each.again]
        print("\n".join(["```", f"# {each.tool.version()}", *filter(None, lines), "```"]))


if __name__ == "__main__":
    main()
