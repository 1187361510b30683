"""Compare a plain file with what mounts make of it, and count what a second version costs.

    python -m tests.benchmarks.bench_passthrough FILE ... [--repeats N]

Each file is in two versions of its own repository. Native: the file itself. Passed through: the kernel reads the
checked plain file of the cache. By the daemon: the daemon reads that file (`--no-passthrough`); the mount's pages are
dropped before each read, those of the plain file stay. Page cache: the mount's pages, without a plain file. All are
read once before the clock runs. Mapped: all bytes are copied out of a mapping, 1 MiB at a time. The ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shardfs
from shardfs.mount import session
from shardfs.mount.options import MountOptions
from tests.benchmarks.measuring import MB, machine, median, read_seconds, table, with_ratio

_MAP = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
start = time.perf_counter()
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as pages:
    for at in range(0, len(pages), 1 << 20):
        pages[at : at + (1 << 20)]
print(time.perf_counter() - start)
"""
WAYS = ("native", "passed through", "by the daemon", "page cache")


def map_seconds(path: Path) -> float:
    """Seconds to map a file and copy all of it."""
    argv = [sys.executable, "-S", "-c", _MAP, str(path)]
    return float(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout)


def drop_pages(path: Path) -> None:
    """Have the kernel forget the pages that this path has."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def make(project: Path, file: Path) -> None:
    """Two versions with the same file."""
    with shardfs.init(project) as repo:
        shutil.copyfile(file, project / "model")
        repo.import_directory(project, "one")
        (project / "more").write_bytes(b"more")
        repo.add([project / "more"])
        repo.commit("two")


@contextmanager
def mounted(project: Path, point: Path, *, passthrough: bool = True, plain: bool = True) -> Iterator[Path]:
    """A mount, with a plain file that the daemon has checked or without one."""
    os.environ["SHARDFS_CACHE_DIR"] = str(project.with_name("cache" if plain else "empty"))
    if plain:
        with shardfs.open(project) as repo:
            repo.warm("HEAD")
    session.mount(point, project, MountOptions(passthrough=passthrough))
    try:
        while plain and not _is_plain(point / "latest" / "model"):
            pass
        yield point
    finally:
        session.unmount(point)


def _is_plain(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return bool(os.getxattr(file.fileno(), "user.shardfs.realpath"))
        except OSError:
            return False


def requests(point: Path) -> int:
    """What the kernel has asked the daemon so far."""
    return int(json.loads((point / ".shardfs" / "stats.json").read_text())["engine"]["requests"])


def requests_of_other_version(point: Path) -> int:
    """How often the kernel asks while the same file of another version is opened, read and closed."""
    folder = os.open((point / "versions" / "0001-one").resolve(), os.O_RDONLY)
    buffer = bytearray(1 << 20)
    requests(point)
    before = requests(point)
    fd = os.open("model", os.O_RDONLY, dir_fd=folder)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)
    between = requests(point)
    os.close(folder)
    return 2 * between - before - requests(point)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rows, counts = [], []
    for file in given.file:
        size = file.stat().st_size
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
            work = Path(name)
            make(work / "project", file)
            with (
                mounted(work / "project", work / "through") as through,
                mounted(work / "project", work / "daemon", passthrough=False) as daemon,
                mounted(work / "project", work / "pages", plain=False) as pages,
            ):
                places = (
                    work / "project" / "model",
                    *(point / "latest" / "model" for point in (through, daemon, pages)),
                )
                for path in places:
                    read_seconds(path)
                for _ in range(given.repeats):
                    for way, path in zip(WAYS, places, strict=True):
                        for what, measure in (("read", read_seconds), ("mapped", map_seconds)):
                            if way == "by the daemon":
                                drop_pages(path)
                            times[way, what].append(measure(path))
                for point, how in ((through, "passed through"), (pages, "page cache")):
                    asked = requests_of_other_version(point)
                    counts.append([f"{file.name}, {how}", str(asked)])
        for what in ("read", "mapped"):
            base = size / MB / median(times["native", what])
            cells = [with_ratio(size / MB / median(times[way, what]), base, 0) for way in WAYS]
            rows.append([f"{file.name} ({size / MB:.0f} MB), {what}", *cells])
    print(f"## Plain files\n\n{machine()} of {given.repeats} runs.\n")
    print(table(["MB/s (of native)", *WAYS], rows) + "\n")
    print(table(["the same file of the other version: opened, read, closed", "requests"], counts))


if __name__ == "__main__":
    main()
