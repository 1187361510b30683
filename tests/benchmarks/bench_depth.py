"""Read each version of a series through a mount: what chains of differences cost, and what undoes it.

    python -m tests.benchmarks.bench_depth FILE ... [--repeats N]

The files become versions of one path, in this order; a later one is a longer chain. Each read is the first of a
fresh mount, with the store's pages dropped: without the plaintext of deep chunks in the cache, with it, and after
`optimize`, which stores the last version by itself. Every version is compared with its file.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import shardfs
from shardfs.mount import session
from shardfs.mount.options import MountOptions
from tests.benchmarks.measuring import (
    MB,
    drop_page_cache,
    invocation,
    machine,
    median,
    read_seconds,
    read_sha256,
    table,
)

Times = dict[str, list[list[float]]]  # by state of the repository, by version: seconds


def make(project: Path, files: list[Path]) -> list[int]:
    """A repository of these versions; returns the longest chain of each."""
    with shardfs.init(project) as repo:
        target = project / f"model{files[0].suffix}"
        for number, file in enumerate(files):
            shutil.copyfile(file, target)
            repo.add([target])
            repo.commit(f"version {number}")
    return depths(project)


def depths(project: Path) -> list[int]:
    """The longest chain of each version."""
    with shardfs.open(project) as repo:
        return [max(part.depth for part in repo.parts(version.commit.hex())) for version in repo.versions()]


def measure(project: Path, files: list[Path], seconds: list[list[float]], *, keep_cache: bool) -> None:
    """One read of every version, each through a mount of its own."""
    with shardfs.open(project) as repo:
        cache = repo.settings.cache_dir
        versions = [version.commit.hex() for version in repo.versions()]
    for number, (version, file) in enumerate(zip(versions, files, strict=True)):
        if not keep_cache:
            shutil.rmtree(cache, ignore_errors=True)
        drop_page_cache(project)
        point = project.with_name("models")
        session.mount(point, project, MountOptions())
        try:
            path = point / "commits" / version / f"model{file.suffix}"
            seconds[number].append(read_seconds(path))
            if read_sha256(path) != read_sha256(file):
                raise SystemExit(f"{file}: the mount serves other bytes than were stored")
        finally:
            session.unmount(point)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    times: Times = defaultdict(lambda: [[] for _ in given.files])
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        project = Path(name) / "project"
        before = make(project, given.files)
        for _ in range(given.repeats):
            measure(project, given.files, times["without cache"], keep_cache=False)
        measure(project, given.files, times["fills the cache"], keep_cache=True)
        for _ in range(given.repeats):
            measure(project, given.files, times["with cache"], keep_cache=True)
        with shardfs.open(project) as repo:
            repo.optimize()
        after = depths(project)
        for _ in range(given.repeats):
            measure(project, given.files, times["optimized"], keep_cache=False)
    print(f"## Mounted read by depth\n\n{machine()} of {given.repeats}.\n\nMade by `{invocation()}`.\n")
    rows = [
        [
            str(number),
            str(before[number]),
            *(
                f"{file.stat().st_size / MB / median(times[how][number]):.0f}"
                for how in ("without cache", "with cache")
            ),
            str(after[number]),
            f"{file.stat().st_size / MB / median(times['optimized'][number]):.0f}",
        ]
        for number, file in enumerate(given.files)
    ]
    head = ["version", "depth", "first read, MB/s", "with cache, MB/s", "depth, optimized", "first read, MB/s"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
