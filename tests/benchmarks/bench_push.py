"""Push and pull a large model and a 5 % change of it: shardfs, git-lfs, restic and rclone, over a link.

    python -m tests.benchmarks.bench_push [--mb N] [--delay MS ...] [--repeats N] [--only NAME ...] [--quick]

A random bf16 model as a .pt file; the second version has 5 % of its bytes changed, whole tensors at a time. Clients and
servers run at the two ends of a link of 1 Gbit/s (link.py) with so many milliseconds for a round trip. What is
committed locally before a push is not measured; restic and rclone have no such step: they read as they send.
Pulls end with the plain file, whose bytes are compared. Bytes are those on the link, headers included. Needs root.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.benchmarks import link
from tests.benchmarks.link import Link
from tests.benchmarks.measuring import MB, Cost, invocation, machine, median, run, table
from tests.benchmarks.serving import serving
from tests.benchmarks.tools import Tool

FILE = "model.pt"
PORT = 8750
STEPS = ("push 1", "pull 1", "push 2", "pull 2")
TITLES = {
    "push 1": "push of the model",
    "pull 1": "pull of it into an empty folder",
    "push 2": "push of the change",
    "pull 2": "pull of the change",
}


@dataclass(frozen=True)
class Step:
    """One run of one step: seconds, bytes over the link, costs of both ends."""

    seconds: float
    sent: int
    received: int
    client_cpu: float
    client_rss: int
    server_cpu: float
    server_rss: int


class Peer:
    """A tool with its server. Commands are shell lines without a shell, run in a folder with `project/` and `out/`.

    `$URL`, `$ADDRESS`, `$PORT`, `$ROOT` and `$FOLDER` are replaced: of the server, its folder and the client's folder.
    """

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    server: ClassVar[str]
    note: ClassVar[str] = ""
    create: ClassVar[tuple[str, ...]] = ()
    commit: ClassVar[tuple[str, ...]] = ()
    push: ClassVar[str]
    clone: ClassVar[tuple[str, ...]]
    update: ClassVar[tuple[str, ...]]
    result: ClassVar[str] = f"out/{FILE}"


class Shardfs(Peer):
    name = "shardfs"
    programs = ("shardfs",)
    server = "shardfs serve -q --root $ROOT --listen $ADDRESS:$PORT --anonymous write"
    create = ("shardfs -C project init", "shardfs -C project remote add origin $URL/demo")
    commit = (f"shardfs -C project add {FILE}", "shardfs -C project commit -m version")
    push = "shardfs -C project push"
    clone = ("shardfs clone --full $URL/demo out", "shardfs -C out checkout main")
    update = ("shardfs -C out pull",)


class GitLfs(Peer):
    name = "git-lfs"
    programs = ("git", "git-lfs")
    note = "git's own objects, a few KB, go to a folder and not over the link"
    server = f"{sys.executable} -m tests.benchmarks.lfs_server $ADDRESS $PORT $ROOT"
    create = (
        "git lfs install --skip-repo",
        "git config --global lfs.url $URL",
        "git config --global lfs.locksverify false",
        "git init -q --bare -b main bare",
        "git init -q -b main project",
        "git -C project remote add origin $FOLDER/bare",
        "git -C project lfs track *.pt",
    )
    commit = ("git -C project add .", "git -C project commit -q -m version")
    push = "git -C project push -q origin main"
    clone = ("git clone -q $FOLDER/bare out",)
    update = ("git -C out pull -q",)


class Restic(Peer):
    name = "restic"
    programs = ("restic", "rclone")
    note = "it encrypts; the server is `rclone serve restic`"
    server = "rclone serve restic --addr $ADDRESS:$PORT $ROOT"
    create = ("restic -q -r rest:$URL/ init",)
    push = "restic -q -r rest:$URL/ backup project"
    clone = ("restic -q -r rest:$URL/ restore latest --target out",)
    update = clone
    result = f"out/project/{FILE}"


class Rclone(Peer):
    name = "rclone"
    programs = ("rclone",)
    note = "WebDAV has no digests, so all of a changed file goes"
    server = "rclone serve webdav --addr $ADDRESS:$PORT $ROOT"
    push = "rclone copy --ignore-times project :webdav: --webdav-url $URL"
    clone = ("rclone copy :webdav: out --webdav-url $URL",)
    update = ("rclone copy --ignore-times :webdav: out --webdav-url $URL",)


PEERS: tuple[type[Peer], ...] = (Shardfs, GitLfs, Restic, Rclone)


class Run:
    """All steps of one peer over one link, in a folder of its own."""

    def __init__(self, peer: type[Peer], ends: Link, scratch: Path) -> None:
        self._peer, self._link, self._scratch = peer, ends, scratch
        self._tool = Tool(scratch)  # for its environment and folders
        self._values = {
            "URL": f"http://{ends.address}:{PORT}",
            "ADDRESS": ends.address,
            "PORT": str(PORT),
            "ROOT": str(scratch / "root"),
            "FOLDER": str(scratch),
        }

    def steps(self, versions: list[Path]) -> Iterator[tuple[str, Step]]:
        """Do and measure all of them.

        Raises:
            SystemExit: a command failed, or the file that came is another.
        """
        (self._scratch / "root").mkdir()
        peer = self._peer
        environment = {**self._environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        argv = shlex.split(self._filled(peer.server))
        with serving(argv, self._link.address, PORT, environment, self._scratch / "log", self._link.server) as server:
            for line in peer.create:
                self._run(line)
            for number, version in enumerate(versions, 1):
                shutil.copyfile(version, self._scratch / "project" / FILE)
                for line in peer.commit:
                    self._run(line)
                for name, lines in (("push", (peer.push,)), ("pull", peer.clone if number == 1 else peer.update)):
                    server.reset()
                    sent, received = self._link.sent(), self._link.received()
                    costs = [self._run(line) for line in lines]
                    there = server.costs()
                    yield (
                        f"{name} {number}",
                        Step(
                            sum(cost.seconds for cost in costs),
                            self._link.sent() - sent,
                            self._link.received() - received,
                            sum(cost.cpu_seconds for cost in costs),
                            max(cost.peak_rss for cost in costs),
                            there.cpu_seconds,
                            there.peak_rss,
                        ),
                    )
                if _digest(self._scratch / peer.result) != _digest(version):
                    raise SystemExit(f"{peer.name}: other bytes came than were sent")

    def _run(self, line: str) -> Cost:
        return run([*self._link.client, *shlex.split(self._filled(line))], self._scratch, self._environment())

    def _environment(self) -> Mapping[str, str]:
        return {**self._tool.environment(), "RCLONE_CONFIG": "/dev/null", "GIT_LFS_SKIP_SMUDGE": "0"}

    def _filled(self, line: str) -> str:
        for name, value in self._values.items():
            line = line.replace(f"${name}", value)
        return line


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def model(mb: int) -> Iterator[list[Path]]:
    """Files of the two versions."""
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        argv = [sys.executable, "-m", "tests.benchmarks.synthetic", name, "--mb", str(mb), "--dtype", "bfloat16"]
        subprocess.run([*argv, "--versions", "v1", "v2"], check=True)
        yield [Path(name, "v1.pt"), Path(name, "v2.pt")]


def rows(step: str, taken: Mapping[str, list[Step]]) -> Iterator[list[str]]:
    """Medians of one step, a row for each peer."""
    for name, steps in taken.items():
        yield [
            f"{name}: {TITLES[step]}",
            f"{median(one.seconds for one in steps):.2f}",
            f"{median(one.sent for one in steps) / MB:.1f}",
            f"{median(one.received for one in steps) / MB:.1f}",
            f"{median(one.client_cpu for one in steps):.2f}",
            f"{median(one.client_rss for one in steps) / MB:.0f}",
            f"{median(one.server_cpu for one in steps):.2f}",
            f"{median(one.server_rss for one in steps) / MB:.0f}",
        ]


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--delay", type=float, nargs="+", default=[0, 20], help="milliseconds for a round trip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100 MB, one run")
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS])
    given = parser.parse_args()
    if reason := link.missing():
        print(f"skipped pushes over a link: {reason}", file=sys.stderr)
        return
    mb, repeats = (100, 1) if given.quick else (given.mb, given.repeats)
    chosen = [peer for peer in PEERS if peer.name in (given.only or peer.name) and _can_run(peer)]
    print(f"## Push and pull of {mb} MB over {link.RATE / 1e9:g} Gbit/s\n")
    notes = "; ".join(f"{peer.name}: {peer.note}" for peer in chosen if peer.note)
    print(f"`{invocation()}`: {machine()} of {repeats} runs. {notes}")
    head = ["", "s", "MB sent", "MB received", "client CPU, s", "client MB", "server CPU, s", "server MB"]
    with model(mb) as versions:
        for delay in given.delay:
            taken: dict[str, dict[str, list[Step]]] = {step: {} for step in STEPS}
            for _ in range(repeats):  # all peers in turn, so that a busy minute hits them alike
                for peer in chosen:
                    with link.slow_link(delay / 2) as ends, tempfile.TemporaryDirectory() as name:
                        for step, cost in Run(peer, ends, Path(name)).steps(versions):
                            taken[step].setdefault(peer.name, []).append(cost)
            print(f"\n### {delay:g} ms\n")
            print(table(head, [row for step in STEPS for row in rows(step, taken[step])]), flush=True)


def _can_run(peer: type[Peer]) -> bool:
    absent = [program for program in peer.programs if shutil.which(program) is None]
    if absent:
        print(f"skipped {peer.name}: {', '.join(absent)} not found", file=sys.stderr)
    return not absent


if __name__ == "__main__":
    main()
