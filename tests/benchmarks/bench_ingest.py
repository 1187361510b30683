"""Commit large checkpoints with shardfs and its peers.

    python -m tests.benchmarks.bench_ingest [--series DIR] [--repeats N] [--only NAME ...] [--rows WORD ...] [--quick]

Random GPT-like state dicts as .pt files, each copied over the one before and committed; see synthetic.py. Seconds end
with `sync -f`, for every tool; `cp` shows what of them is the disk. With TMPDIR on a tmpfs none is, and no tool has
written anything. DIR keeps the files for other runs; see series.py.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import schemes
from tests.benchmarks.measuring import MB, Cost, invocation, machine, median, table, with_ratio
from tests.benchmarks.series import make
from tests.benchmarks.tools import VERSIONED, Copy, Shardfs, Tool, commands, present

NAME = "model.pt"
BLOCK = 512  # bytes that count as changed together; a tensor of a .pt begins at a multiple of 64
READ_SIZE = 1 << 20


class Step(NamedTuple):
    """A commit of a file, or a look at an unchanged project."""

    title: str
    file: str | None


class Case(NamedTuple):
    """Steps in one project, with files of one folder of the series."""

    title: str
    folder: str
    steps: tuple[Step, ...]


FIRST = Step("first commit", "v1.pt")
PART = Step("second commit, 5 % changed", "v2.pt")
LOOK = Step("nothing changed", None)
ALL = Step("next commit, every tensor moved", "v3.pt")

CASES = (
    Case("fp32 `.pt` of 300 MB", "syn", (FIRST, PART, LOOK, ALL)),
    Case("bf16 `.pt` of 300 MB", "syn-bf16", (FIRST, ALL)),
    Case("fp32 `.pt` of 1 GB", "syn-large", (FIRST, ALL)),
    Case("bf16 `.pt` of 1 GB", "syn-large-bf16", (FIRST, ALL)),
)
QUICK = (Case("fp32 `.pt` of 60 MB", "syn-quick", (FIRST, PART, LOOK, ALL)),)

Costs = dict[tuple[str, str], list[Cost]]  # by tool and step


def changed_bytes(old: Path | None, new: Path) -> int:
    """Bytes of the blocks of a file that differ from those at the same place of the file before.

    Files are read piece by piece: the kernel would count this process's memory to the peaks of its children.
    """
    if old is None:
        return new.stat().st_size
    changed = 0
    with old.open("rb") as before, new.open("rb") as after:
        while piece := after.read(READ_SIZE):
            other = before.read(len(piece))
            if piece == other:
                continue
            for start in range(0, len(piece), BLOCK):
                block = piece[start : start + BLOCK]
                changed += len(block) if block != other[start : start + BLOCK] else 0
    return changed


def measure(tool: type[Tool], case: Case, folder: Path, scratch: Path, costs: Costs) -> None:
    """Run the steps of a case once."""
    running = tool(scratch)
    running.do_create()
    for number, step in enumerate(case.steps, start=1):
        if step.file:
            shutil.copyfile(folder / step.file, running.project / NAME)
        subprocess.run(["sync", "-f", str(scratch)], check=True)
        cost = running.do_commit(number) if step.file else running.do_look(number)
        costs[tool.name, step.title].append(cost)
    shutil.rmtree(scratch)


def row(name: str, costs: list[Cost], base: list[Cost], size: int, changed: int) -> list[str]:
    """Medians of one tool beside those of shardfs."""
    seconds = median(cost.seconds for cost in costs)
    written = median(cost.written for cost in costs)
    return [
        name,
        with_ratio(seconds, median(cost.seconds for cost in base) if base else None, 2),
        f"{size / MB / seconds:.0f}" if changed else "-",
        f"{median(cost.cpu_seconds for cost in costs):.2f}",
        f"{max(cost.peak_rss for cost in costs) / MB:.0f}",
        f"{written / MB:.1f}",
        f"{written / changed:.3f}" if changed else "-",
    ]


def report(case: Case, folder: Path, costs: Costs, tools: list[str]) -> None:
    """Print a table for each step of a case."""
    head = ["", "wall, s", "MB/s", "CPU, s", "peak RSS, MB", "written, MB", "written / changed"]
    print(f"### {case.title}\n")
    last: Path | None = None
    for step in case.steps:
        file = folder / step.file if step.file else last
        assert file is not None
        changed = changed_bytes(last, file)
        rows = [
            row(tool, costs[tool, step.title], costs[Shardfs.name, step.title], file.stat().st_size, changed)
            for tool in tools
        ]
        print(f"**{step.title}** ({changed / MB:.1f} of {file.stat().st_size / MB:.1f} MB new)\n")
        print(table(head, rows) + "\n", flush=True)
        last = file


def codec_alone(file: Path) -> str:
    """How fast ZipNN encodes a file from memory to memory."""
    summary = schemes.store("zipnn", [file])
    speed = f"{file.stat().st_size / MB / summary.encode_seconds:.0f} MB/s" if summary else "crashed"
    return f"ZipNN, codec alone, one thread, from memory to memory, {file.name}: {speed}."


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, help="folder of the files; what is missing in it is made")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="names of tools")
    parser.add_argument("--rows", nargs="+", help="words of titles of files")
    parser.add_argument("--quick", action="store_true", help="one small file, once")
    given = parser.parse_args()
    repeats = 1 if given.quick else given.repeats
    tools = [tool for tool in present((*VERSIONED, Copy)) if not given.only or tool.name in given.only]
    zipnn = schemes.present(["zipnn"]) if not given.only or "zipnn" in given.only else []
    print(f"## Commit of large checkpoints\n\n{machine()} of {repeats} runs, peaks are the highest.\n")
    print(f"Made by `{invocation()}`.\n")
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        work = Path(name)
        series = (given.series or work / "series").absolute()
        for case in QUICK if given.quick else CASES:
            if given.rows and not any(word in case.title for word in given.rows):
                continue
            make(series, [case.folder])
            costs: Costs = defaultdict(list)
            for _ in range(repeats):  # all tools in turn, so that a busy minute hits them alike
                for tool in tools:
                    measure(tool, case, series / case.folder, work / "scratch", costs)
            report(case, series / case.folder, costs, [tool.name for tool in tools])
            if zipnn:
                print(codec_alone(series / case.folder / "v1.pt") + "\n", flush=True)
    print(commands(tools, to_look=True))


if __name__ == "__main__":
    main()
