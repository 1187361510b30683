"""Many clients read a model lazily from one server: through the library and through mounts, from shardfs and nginx.

    python -m tests.benchmarks.bench_serve [--mb N] [--clients N ...] [--mounts N ...] [--repeats N] [--quick]

Each client is a process with a lazy clone, or a mount, and a cache of its own, empty at first. All begin at the same
time and read the same file from end to end, 1 MiB at a time. Server and clients share the processors of one machine, so
the processors that the server used say more than the megabytes per second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import nginx
from tests.benchmarks.measuring import MB, invocation, machine, median, run, table
from tests.benchmarks.serving import Serving, serving

FILE = "model.pt"
READ_S = 600
SHARDFS = (sys.executable, "-m", "shardfs_cli")

# What a client runs: prints a line when it is ready, waits for one, reads, and prints what each read took.
_CLIENT = """
import json, sys, time
place, way = sys.argv[1], sys.argv[2]
if way == "library":
    import shardfs
    repo = shardfs.open(place)
    entry = repo.entry("HEAD", "model.pt")
    reader = repo.open_entry(entry)
    read = lambda offset: len(reader.read_at(offset, 1 << 20))
else:
    import os
    fd = os.open(place, os.O_RDONLY)
    buffer = bytearray(1 << 20)
    read = lambda offset: os.preadv(fd, [buffer], offset)
print("ready", flush=True)
sys.stdin.readline()
took, offset = [], 0
while True:
    start = time.perf_counter()
    count = read(offset)
    took.append(time.perf_counter() - start)
    offset += count
    if not count:
        break
print(json.dumps({"bytes": offset, "took": took[:-1]}))
"""


@dataclass(frozen=True)
class Result:
    """What some clients took together: seconds, bytes, seconds of each read; and what the server used."""

    seconds: float
    bytes: int
    reads: list[float]
    server_cpu: float
    server_rss: int


def make_store(root: Path, mb: int) -> Path:
    """A repository with one model, as `root/demo`; returns the model."""
    project = root.parent / "project"
    project.mkdir()
    argv = [sys.executable, "-m", "tests.benchmarks.synthetic", str(project), "--mb", str(mb), "--dtype", "bfloat16"]
    subprocess.run([*argv, "--versions", "v1"], check=True)
    (project / "v1.pt").rename(project / FILE)
    for words in (["init"], ["add", FILE], ["commit", "-m", "model"]):
        run([*SHARDFS, "-C", str(project), *words], project, environment(project))
    root.mkdir()
    shutil.move(project / ".shardfs", root / "demo")
    return project / FILE


def environment(home: Path) -> dict[str, str]:
    """The environment of a program with a home, and so a cache, of its own."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "SHARDFS_"))}
    paths = os.pathsep.join(filter(None, sys.path))
    return {**own, "HOME": str(home), "PYTHONPATH": paths, "SHARDFS_AUTHOR": "Bench <bench@example.org>"}


@contextmanager
def clients(way: str, url: str, count: int, folder: Path) -> Iterator[list[tuple[Path, dict[str, str]]]]:
    """What so many clients read from, and the environments that they run in."""
    clone = folder / "clone"
    run([*SHARDFS, "clone", url, str(clone)], folder, environment(folder))
    with ExitStack() as stack:
        places = []
        for number in range(count):
            home = folder / f"client-{number}"
            home.mkdir()
            where = environment(home)
            shutil.copytree(clone, home / "clone")
            if way == "mount":
                point = home / "mnt"
                run([*SHARDFS, "mount", "-q", "--read-only", str(point), "--source", str(home / "clone")], home, where)
                stack.callback(run, [*SHARDFS, "umount", "-q", "--force", str(point)], home, where)
            places.append((home / "mnt/latest" / FILE if way == "mount" else home / "clone", where))
        yield places


def read_all(way: str, places: Sequence[tuple[Path, dict[str, str]]], server: Serving) -> Result:
    """Let all clients read at the same time."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _CLIENT, str(place), way],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=where,
                )
            )
            for place, where in places
        ]
        for program in programs:
            assert program.stdout is not None
            if program.stdout.readline() != "ready\n":
                raise SystemExit("a client did not begin")
        server.reset()
        begin = time.perf_counter()
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        said = [json.loads(program.communicate(timeout=READ_S)[0]) for program in programs]
        seconds = time.perf_counter() - begin
    costs = server.costs()
    reads = [took for one in said for took in one["took"]]
    return Result(seconds, sum(one["bytes"] for one in said), reads, costs.cpu_seconds, costs.peak_rss)


@contextmanager
def by_shardfs(root: Path, scratch: Path) -> Iterator[tuple[Serving, str]]:
    """`shardfs serve`, and the URL of the repository."""
    port = nginx.free_port()
    argv = [*SHARDFS, "serve", "-q", "--root", str(root), "--listen", f"127.0.0.1:{port}", "--anonymous", "read"]
    with serving(argv, "127.0.0.1", port, environment(scratch), scratch / "serve.log") as server:
        yield server, f"http://127.0.0.1:{port}/demo"


@contextmanager
def by_nginx(root: Path, scratch: Path) -> Iterator[tuple[Serving, str]]:
    """nginx over the same folder, with the configuration of the manual."""
    port = nginx.free_port()
    changes = {
        "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{port};",
        "root /srv/www/models;": f"root {root};",
        "pid /run/nginx-models.pid;": f"pid {scratch}/nginx.pid;",
    }
    configuration = nginx.replaced(nginx.manual("nginx-static"), changes)
    with nginx.nginx(scratch, configuration, port):
        yield Serving(int((scratch / "nginx.pid").read_text())), f"http://127.0.0.1:{port}/demo"


def row(title: str, results: Sequence[Result]) -> list[str]:
    """Medians of some runs."""
    reads = sorted(took for result in results for took in result.reads)
    return [
        title,
        f"{median(result.bytes / result.seconds for result in results) / MB:.0f}",
        f"{reads[len(reads) // 2] * 1000:.2f}",
        f"{reads[len(reads) * 99 // 100] * 1000:.1f}",
        f"{median(result.server_cpu for result in results):.2f}",
        f"{median(result.server_cpu / result.bytes * 1e9 for result in results):.2f}",
        f"{median(result.server_rss for result in results) / MB:.0f}",
    ]


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--mounts", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="40 MB, one run")
    given = parser.parse_args()
    mb, repeats = (40, 1) if given.quick else (given.mb, given.repeats)
    servers = {"shardfs serve": by_shardfs}
    if nginx.NGINX is None:
        print("skipped nginx: not found", file=sys.stderr)
    else:
        servers["nginx"] = by_nginx
    ways = [("library", count) for count in given.clients] + [("mount", count) for count in given.mounts]
    rows = []
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        scratch = Path(name)
        size = make_store(scratch / "root", mb).stat().st_size
        for title, begin in servers.items():
            with begin(scratch / "root", scratch) as (server, url):
                for way, count in ways:
                    results = []
                    for _ in range(repeats):
                        with tempfile.TemporaryDirectory(dir=scratch) as folder:
                            with clients(way, url, count, Path(folder)) as places:
                                results.append(read_all(way, places, server))
                            if results[-1].bytes != count * size:
                                raise SystemExit("clients read another number of bytes than were stored")
                    rows.append(row(f"{title}, {way}, {count} client{'s' if count > 1 else ''}", results))
    print(f"## Lazy reads of {mb} MB by many clients of one server\n")
    print(f"`{invocation()}`: {machine()} of {repeats} runs.\n")
    head = ["", "MB/s in all", "1 MiB p50, ms", "p99, ms", "server CPU, s", "s per GB", "server MB"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
