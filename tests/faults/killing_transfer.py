"""kill -9 of the client or the server at random moments of what is done with a remote, then the same command again.

    python -m tests.faults.killing_transfer [--rounds N] [--first SEED] [--operation NAME ...]

It must end right, with nothing sent twice but the one pack that was on its way.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.faults.bench import LIMIT_S, Bench
from tests.faults.campaign import judge
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.origins import Served

KILLED: Final = ("push", "pull", "clone --full", "fetch --full")


def packs_of(store: Path) -> list[int]:
    """Sizes of the packs of a store."""
    return [path.stat().st_size for path in (store / "packs").rglob("*.pack")]


def one_round(bench: Bench, origin: Served, operation: Operation, seed: int, usual_s: float) -> tuple[str, list[str]]:
    """Kill once; who was killed, and what was wrong."""
    chance = random.Random(f"{operation.name} {seed}")
    victim = chance.choice(("client", "server"))
    with bench.case(operation, bench.plain.url, SHARDFS_DEADLINE="10") as running:
        case = running.case
        store = origin.root / case.name
        before = sum(packs_of(store))
        bench.plain.change()
        child = running.start()
        time.sleep(chance.uniform(0, usual_s))
        if victim == "client":
            child.kill()
        else:
            origin.kill()
            bench.plain.change(upstream=origin.upstream)
        ended = child.wait(LIMIT_S)
        kind, said = judge(operation.name, ended) if victim == "server" or ended.status == 0 else ("error", "")
        wrong = [f"{kind}: {said}"] if kind in ("wrong", "hang") else []
        first = bench.plain.change()
        wrong += running.finish(is_done=kind == "ok")
        second = bench.plain.change()
        sizes = packs_of(store)
        sent = sum(count for report in (first, second) for to, count in report["sent"].items() if "/packs/" in to)
        most = sum(sizes) - before + max(sizes)
        if operation.sends and sent > most:
            wrong.append(f"{sent} bytes of packs were sent where {most} are enough")
    return victim, wrong


def main() -> None:
    """Do the rounds; the exit status is 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="of each operation")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--operation", nargs="+", choices=KILLED, default=KILLED)
    given = parser.parse_args()
    os.environ["SHARDFS_AUTHOR"] = "A Tester <tester@example.org>"
    done: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="shardfs-kills-") as name, ExitStack() as stack:
        origin = Served(Path(name), stack)
        bench = Bench(Path(name), stack, origin)
        for operation in (OPERATIONS[each] for each in given.operation):
            usual_s = _seconds(bench, operation)
            for seed in range(given.first, given.first + given.rounds):
                victim, problems = one_round(bench, origin, operation, seed, usual_s)
                done[f"{operation.name}, {victim}"] += 1
                wrong += bool(problems)
                for problem in problems:
                    print(f"{operation.name}, {victim} killed, seed {seed}: {problem}", flush=True)
    for what, count in done.items():
        print(f"{what}: {count}")
    print(f"{wrong} wrong")
    if wrong:
        sys.exit(1)


def _seconds(bench: Bench, operation: Operation) -> float:
    """How long it takes when nobody is killed."""
    with bench.case(operation, bench.plain.url) as running:
        ended = running.start().wait(LIMIT_S)
        assert ended.status == 0, ended.said
        return ended.seconds


if __name__ == "__main__":
    main()
