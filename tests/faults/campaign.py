"""Every fault against every operation, many times: right bytes or one clear line, in time, and right in the end.

    python -m tests.faults.campaign [--seeds N] [--first SEED] [--at PLACE] [--fault NAME ...] [--operation NAME ...]

A case is one operation on fresh copies of small repositories, through the proxy with one fault that meets a share of
the exchanges. Then the same once more without faults, and verification on both sides. Counted are

    ok      done, and it was
    error   one clear line
    wrong   other bytes, a traceback, no message, too much memory, or not right in the end
    hang    not over after `LIMIT_S`
"""

from __future__ import annotations

import argparse
import gc
import importlib
import multiprocessing
import os
import pkgutil
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import shardfs.maintenance
import shardfs.remotes
import shardfs.transfer
import shardfs_cli.commands
from tests.certificates import OPENSSL
from tests.faults import proxy
from tests.faults.bench import LIMIT_S, Bench
from tests.faults.breaking import GREETING_FAULTS, UPLOAD_FAULTS
from tests.faults.children import Ended
from tests.faults.operations import OPERATIONS, REMOTE_FAILED
from tests.faults.origins import Bucket, Served, Static

MOST_MEMORY: Final = 400 << 20  # bytes
SHARES: Final = (0.1, 0.3, 1.0)
MOUNTED_SHARE: Final = 10  # one in so many seeds goes through a mount, which takes a second to make
FOUND: Final = [name for name in proxy.ALL if OPENSSL or name not in GREETING_FAULTS]
PLACES: Final = {"server": Served, "static": Static, "bucket": Bucket}
OUTCOMES: Final = ("ok", "error", "wrong", "hang")
CLEAR: Final = {REMOTE_FAILED, 13, 10}  # a remote failed, damage, no repository there
CONFLICT: Final = 15
LIES: Final = {
    "404",
    "flip",
    "garble",
    "other-answer",
    "redirect",
}  # from which conflicts can come: something looks gone


class Job(NamedTuple):
    """A case to try."""

    fault: str
    operation: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        kind: one of OUTCOMES.
        said: what the operation said, or what is wrong.
        met: exchanges that the fault met.
        seconds: of the operation under faults.
    """

    job: Job
    kind: str
    said: str
    met: int
    seconds: float


def attempt(bench: Bench, job: Job) -> Outcome:
    """Try one case."""
    operation = OPERATIONS[job.operation]
    tls = job.fault in GREETING_FAULTS
    front = bench.tls if tls else bench.plain
    share = random.Random(f"{job}").choice(SHARES)
    with bench.case(operation, front.url) as running:
        front.change(seed=job.seed, share=share, faults=[job.fault])
        ended = running.start().wait(LIMIT_S)
        met = sum(count for fault, count in front.change()["met"].items() if fault)
        kind, said = judge(job.fault, ended)
        if kind in ("ok", "error"):
            wrong = running.finish(is_done=kind == "ok")
            if operation.mounts:
                wrong += running.check(lambda: operation.end(running.case))
            if wrong:
                kind, said = "wrong", f"{kind}: {ended.said.strip()}; then {'; '.join(wrong)}"
    return Outcome(job, kind, said, met, ended.seconds)


def judge(fault: str, ended: Ended) -> tuple[str, str]:
    """What kind of end an operation had, as far as it tells itself."""
    said = ended.said.strip()
    if ended.status is None:
        return "hang", said
    if "Traceback" in said or "internal error" in said or "Fatal Python error" in said:
        return "wrong", said
    if ended.peak_rss > MOST_MEMORY:
        return "wrong", f"held {ended.peak_rss >> 20} MiB"
    if ended.status == 0:
        return "ok", said
    last = said.rpartition("\n")[2]
    clear = CLEAR | ({CONFLICT} if fault in LIES else set())
    if ended.status not in clear or not 20 < len(last) < 700 or not last.isprintable():
        return "wrong", f"exit status {ended.status}: {said}"
    return "error", last


_bench: list[Bench] = []  # of this process
_stack = ExitStack()


def _begin(folder: str, place: str) -> None:
    os.environ["SHARDFS_AUTHOR"] = "A Tester <tester@example.org>"
    own = Path(folder, str(os.getpid()))
    for kind in ("CACHE", "CONFIG", "STATE"):
        os.environ[f"XDG_{kind}_HOME"] = str(own / kind.lower())
    multiprocessing.util.Finalize(None, _stack.close, exitpriority=10)
    for package in (shardfs.maintenance, shardfs.remotes, shardfs.transfer, shardfs_cli.commands):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)  # once, not in each child
    own.mkdir()
    _bench.append(Bench(own, _stack, PLACES[place](own, _stack)))
    gc.collect()
    gc.freeze()  # or each child copies what its collector looks at


def _work(job: Job) -> tuple[Outcome, int]:
    try:
        outcome = attempt(_bench[0], job)
    except Exception as error:  # noqa: BLE001 - costs one case, not the campaign
        outcome = Outcome(job, "wrong", f"the campaign itself failed: {error!r}", 0, 0.0)
    return outcome, _bench[0].origin.peak_memory()


def jobs(seeds: Sequence[int], faults: Sequence[str], operations: Sequence[str], *, spread: bool) -> list[Job]:
    """All cases: mounts for fewer seeds, faults of uploads for what uploads; `spread`: one operation for each seed."""
    if spread:
        return [
            Job(fault, able[(seed + number) % len(able)], seed)
            for seed in seeds
            for number, fault in enumerate(faults)
            if (able := [name for name in operations if fault not in UPLOAD_FAULTS or OPERATIONS[name].sends])
        ]
    return [
        Job(fault, operation, seed)
        for index, seed in enumerate(seeds)
        for fault in faults
        for operation in operations
        if (fault not in UPLOAD_FAULTS or OPERATIONS[operation].sends)
        and (operation != "mounted read" or index % MOUNTED_SHARE == 0)
    ]


def run(todo: Sequence[Job], processes: int, folder: Path, place: str) -> Iterator[Outcome]:
    """Try all cases, in any order; what goes wrong with a server is an outcome, too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(str(folder), place)) as pool:
        peak = 0
        for future in as_completed([pool.submit(_work, job) for job in todo]):
            outcome, memory = future.result()
            peak = max(peak, memory)
            yield outcome
        print(f"servers held at most {peak >> 20} MiB", flush=True)
        if peak > MOST_MEMORY:
            yield Outcome(Job("all", "server", 0), "wrong", f"the server held {peak >> 20} MiB", 0, 0.0)


def table(outcomes: Sequence[Outcome]) -> str:
    """Faults and operations as a Markdown table of ok / error / wrong / hang."""
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    met: Counter[str] = Counter()
    longest: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        cells[outcome.job.fault, outcome.job.operation][outcome.kind] += 1
        met[outcome.job.fault] += outcome.met
        longest[outcome.job.fault] = max(longest[outcome.job.fault], outcome.seconds)
    operations = list(dict.fromkeys(operation for _, operation in cells))
    lines = [["fault", *operations, "met", "longest, s"], ["---"] + ["---:"] * (len(operations) + 2)]
    for fault in sorted(met):
        counts = (cells.get((fault, operation)) for operation in operations)
        shown = (" / ".join(str(c[kind]) for kind in OUTCOMES) if c else "-" for c in counts)
        lines.append([fault, *shown, str(met[fault]), f"{longest[fault]:.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run a campaign; the exit status is 1 when something was wrong or hung."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="most cases wait most of the time")
    parser.add_argument("--fault", nargs="+", choices=FOUND, default=[*FOUND])
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=[*OPERATIONS])
    parser.add_argument(
        "--at", choices=PLACES, default="server", help="the far side; nothing is pushed to a static one"
    )
    parser.add_argument("--spread", action="store_true", help="one operation for each fault and seed, in turn")
    parser.add_argument("--show", action="store_true", help="every outcome, with what was said")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    operations = [name for name in given.operation if PLACES[given.at].takes_pushes or not OPERATIONS[name].sends]
    faults = [fault for fault in given.fault if fault not in PLACES[given.at].trusted]
    todo = jobs(seeds, faults, operations, spread=given.spread)
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shardfs-faults-") as name:
        for outcome in run(todo, given.jobs, Path(name), given.at):
            outcomes.append(outcome)
            if given.show or outcome.kind in ("wrong", "hang"):
                print(f"{outcome.kind}: {outcome.job}: {outcome.said}", flush=True)
    print(table(outcomes))
    kinds = Counter(outcome.kind for outcome in outcomes)
    said = ", ".join(f"{kinds[kind]} {kind}" for kind in OUTCOMES)
    print(
        f"\n{len(outcomes)} cases in {time.monotonic() - begin:.0f} s: {said} (in the table: ok / error / wrong / hang)"
    )
    if kinds["wrong"] or kinds["hang"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
