"""Every fault against every operation, many times: right bytes or one clear line, in time, and right in the end.

    python -m tests.faults.campaign [--seeds N] [--first SEED] [--static] [--fault NAME ...] [--operation NAME ...]

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
import json
import multiprocessing
import os
import pkgutil
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import shardfs.maintenance
import shardfs.remotes
import shardfs.transfer
import shardfs_cli.commands
from tests import nginx
from tests.certificates import OPENSSL, Pair, make_certificate
from tests.faults import proxy
from tests.faults.breaking import GREETING_FAULTS, UPLOAD_FAULTS
from tests.faults.children import Child, Ended, checking
from tests.faults.operations import OPERATIONS, REMOTE_FAILED, Case, Operation, Templates
from tests.serving import serving

DEADLINE_S: Final = 1.0
PATIENT_S: Final = 30.0  # the deadline where nothing is broken, only slow
LIMIT_S: Final = 100.0  # of a command that asks some twenty things, each within the deadline
MOUNTED_LIMIT_S: Final = 200.0  # of a dozen files, which the kernel asks for again when it could not read ahead
MOST_MEMORY: Final = 400 << 20  # bytes
SHARES: Final = (0.1, 0.3, 1.0)
MOUNTED_SHARE: Final = 10  # one in so many seeds goes through a mount, which takes a second to make
FOUND: Final = [name for name in proxy.ALL if OPENSSL or name not in GREETING_FAULTS]
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


class Proxy:
    """A proxy in a process of its own."""

    def __init__(self, upstream: str, tls: Pair | None) -> None:
        argv = [sys.executable, "-m", "tests.faults.proxy", upstream, *(["--tls", *map(str, tls)] if tls else [])]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url: str = self._heard()["url"]

    def change(self, **weather: Any) -> dict[str, Any]:
        """As `FaultProxy.change`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(weather) + "\n")
        self._process.stdin.flush()
        return self._heard()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        heard: dict[str, Any] = json.loads(self._process.stdout.readline())
        return heard


@contextmanager
def _static(folder: Path, root: Path) -> Iterator[str]:
    """nginx over the same folder, with the configuration of the manual; its URL."""
    port = nginx.free_port()
    changes = {
        "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{port};",
        "root /srv/www/models;": f"root {root};",
        "pid /run/nginx-models.pid;": f"pid {folder}/nginx.pid;",
    }
    with nginx.nginx(folder, nginx.replaced(nginx.manual("nginx-static"), changes), port):
        yield f"http://127.0.0.1:{port}"


class Bench:
    """A server, its proxies and the repositories that cases are copies of; one in each process of a campaign."""

    def __init__(self, folder: Path, stack: ExitStack, *, static: bool = False) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._stack = stack
        self.server = stack.enter_context(serving(self.root))
        self.templates = Templates.make(folder / "templates", self.root, self.server.url)
        self.certificate = make_certificate(folder) if OPENSSL else None
        upstream = stack.enter_context(_static(folder, self.root)) if static else self.server.url
        self.plain = Proxy(upstream, None)
        stack.callback(self.plain.close)
        self.tls = Proxy(upstream, self.certificate)
        stack.callback(self.tls.close)
        self._count = 0

    @contextmanager
    def case(self, operation: Operation, url: str, **environment: str) -> Iterator[Running]:
        """Fresh copies for an operation behind `url`; all is removed in the end."""
        self._count += 1
        name = f"case-{self._count}"
        folder = self.folder / name
        folder.mkdir()
        case = Case(self.templates, folder, self.root / name, f"{url}/{name}")
        running = Running(operation, case, {**self._environment(folder), **environment})
        operation.prepare(case)
        try:
            wrong = running.check(lambda: operation.mount(case)) if operation.mounts else []
            assert not wrong, wrong
            yield running
        finally:
            if operation.mounts:
                running.check(lambda: operation.end(case))
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(case.store, ignore_errors=True)

    def _environment(self, folder: Path) -> dict[str, str]:
        places = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "CONFIG", "STATE")}
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        return {
            **places,
            "XDG_RUNTIME_DIR": str(runtime),
            "SHARDFS_DEADLINE": str(DEADLINE_S),
            **({"SSL_CERT_FILE": str(self.certificate.certificate)} if self.certificate else {}),
        }

    def kill_server(self) -> None:
        """kill -9, and another one in its place."""
        self.server.kill()
        self.server.process.wait()
        self.server = self._stack.enter_context(serving(self.root))
        for front in (self.plain, self.tls):
            front.change(upstream=self.server.url)

    def server_memory(self) -> int:
        """The most resident bytes that the server ever had."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10


@dataclass
class Running:
    """An operation on copies of its own, step by step, each in a child."""

    operation: Operation
    case: Case
    environment: dict[str, str]

    def start(self) -> Child:
        """Begin the operation."""
        return Child(lambda: self.operation.run(self.case), self._log, self.environment)

    def finish(self, *, is_done: bool) -> list[str]:
        """Do it once more, without faults; what is wrong then, or was already after it said that it is done."""

        def check() -> list[str]:
            before = self.operation.done(self.case) if is_done else []
            status = self.operation.again(self.case)
            if status:
                return [*before, f"without faults: exit status {status}"]
            return [*before, *self.operation.done(self.case), *self.operation.sound(self.case)]

        return self.check(check)

    def check(self, check: Callable[[], Sequence[str]]) -> list[str]:
        """What a check finds, in a child."""
        child = Child(checking(check), self._log, {**self.environment, "SHARDFS_DEADLINE": str(PATIENT_S)})
        ended = child.wait(LIMIT_S)
        return [] if ended.status == 0 else [ended.said.strip() or f"a check ended with {ended.status}"]

    @property
    def _log(self) -> Path:
        return self.case.folder / "said"


def attempt(bench: Bench, job: Job) -> Outcome:
    """Try one case."""
    operation = OPERATIONS[job.operation]
    tls = job.fault in GREETING_FAULTS
    front = bench.tls if tls else bench.plain
    share = random.Random(f"{job}").choice(SHARES)
    with bench.case(operation, front.url) as running:
        front.change(seed=job.seed, share=share, faults=[job.fault])
        ended = running.start().wait(MOUNTED_LIMIT_S if operation.mounts else LIMIT_S)
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


def _begin(folder: str, static: bool) -> None:
    os.environ["SHARDFS_AUTHOR"] = "A Tester <tester@example.org>"
    place = Path(folder, str(os.getpid()))
    for kind in ("CACHE", "CONFIG", "STATE"):
        os.environ[f"XDG_{kind}_HOME"] = str(place / kind.lower())
    multiprocessing.util.Finalize(None, _stack.close, exitpriority=10)
    for package in (shardfs.maintenance, shardfs.remotes, shardfs.transfer, shardfs_cli.commands):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)  # once, not in each child
    _bench.append(Bench(place, _stack, static=static))
    gc.collect()
    gc.freeze()  # or each child copies what its collector looks at


def _work(job: Job) -> tuple[Outcome, int]:
    return attempt(_bench[0], job), _bench[0].server_memory()


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


def run(todo: Sequence[Job], processes: int, folder: Path, *, static: bool) -> Iterator[Outcome]:
    """Try all cases, in any order; what goes wrong with a server is an outcome, too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(str(folder), static)) as pool:
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
    parser.add_argument("--static", action="store_true", help="a static web server, which takes no pushes")
    parser.add_argument("--spread", action="store_true", help="one operation for each fault and seed, in turn")
    parser.add_argument("--show", action="store_true", help="every outcome, with what was said")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    operations = [name for name in given.operation if not (given.static and OPERATIONS[name].sends)]
    todo = jobs(seeds, given.fault, operations, spread=given.spread)
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shardfs-faults-") as name:
        for outcome in run(todo, given.jobs, Path(name), static=given.static):
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
