"""Commit four checkpoints of a really fine-tuned model with shardfs and its peers.

    python -m tests.benchmarks.bench_commit [--repeats N] [--only NAME ...]

Prints one Markdown table per series: seconds of the first and of later commits (durable: `sync -f` is
part of the time), CPU seconds of all four, bytes stored for them, and the resident bytes of the largest process.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measuring import MB, Cost, machine, median, table, with_ratio
from tests.benchmarks.tools import VERSIONED, Tool, commands, present

VERSIONS = 4
SERIES = {
    "fp32, every tensor trains": ["--train", "all"],
    "fp32, two of six layers train": ["--train", "top"],
}
CHECKPOINTS = Path(__file__).parent.parent / "checkpoints.py"


@dataclass(frozen=True)
class Result:
    """One run of one tool over one series."""

    costs: list[Cost]
    stored: int


def make_series(out: Path, options: list[str]) -> list[Path]:
    """Checkpoint files, oldest first."""
    argv = [
        sys.executable,
        str(CHECKPOINTS),
        str(out),
        "--versions",
        str(VERSIONS),
        "--container",
        "safetensors",
        *options,
    ]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return sorted(out.glob("*/model.safetensors"))


def measure(tool: type[Tool], files: list[Path], scratch: Path) -> Result:
    """Commit each file in turn under the same name."""
    running = tool(scratch)
    running.do_create()
    costs = []
    for number, file in enumerate(files, start=1):
        shutil.copyfile(file, running.project / "model.safetensors")
        subprocess.run(["sync", "-f", str(scratch)], check=True)
        costs.append(running.do_commit(number))
    return Result(costs, running.stored())


def row(name: str, results: list[Result], base: list[Result] | None) -> list[str]:
    """Medians of one tool's runs beside the medians of shardfs's."""

    def medians(runs: list[Result]) -> list[float]:
        return [
            median(run.costs[0].seconds for run in runs),
            median(cost.seconds for run in runs for cost in run.costs[1:]),
            median(sum(cost.cpu_seconds for cost in run.costs) for run in runs),
            median(run.stored for run in runs) / MB,
            median(max(cost.peak_rss for cost in run.costs) for run in runs) / MB,
        ]

    reference = medians(base) if base else [None] * 5
    digits = (2, 2, 2, 1, 0)
    values = zip(medians(results), reference, digits, strict=True)
    return [name, *(with_ratio(value, other, places) for value, other, places in values)]


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of tools")
    given = parser.parse_args()
    tools = [tool for tool in present(VERSIONED) if not given.only or tool.name in given.only]
    print(f"## Commit of {VERSIONS} checkpoints\n\n{machine()} of {given.repeats} runs.\n")
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        work = Path(name)
        for title, options in SERIES.items():
            files = make_series(work / "series", options)
            results: dict[str, list[Result]] = {tool.name: [] for tool in tools}
            for _ in range(given.repeats):  # all tools in turn, so that a busy minute hits them alike
                for tool in tools:
                    results[tool.name].append(measure(tool, files, work / "scratch"))
                    shutil.rmtree(work / "scratch")
            plain = sum(file.stat().st_size for file in files) / MB
            print(f"### {title} ({plain:.1f} MB as plain files)\n")
            head = ["", "first commit, s", "later commit, s", "CPU of all, s", "stored, MB", "peak RSS, MB"]
            rows = [row(tool, runs, results.get("shardfs")) for tool, runs in results.items()]
            print(table(head, rows) + "\n", flush=True)
            shutil.rmtree(work / "series")
    print(commands(tools))


if __name__ == "__main__":
    main()
