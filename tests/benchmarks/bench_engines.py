"""Compare the engines of the mount.

    python -m tests.benchmarks.bench_engines FILE ... [--repeats N] [--files N]

Each file is a version of its own repository, and unchanged in a second one. Cold: a fresh mount; the store's pages are
in memory, so that the engine is measured and not the disk. Again: opened and read once more. Second version: the same
content at another path. The tree has N files in 100 directories; it is listed with `ls -lR`. Processor time is the
daemon's. The engines take turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shardfs
from shardfs.mount import session
from shardfs.mount.options import Engine, MountOptions
from tests.benchmarks.measuring import MB, machine, median, read_seconds, table

ENGINES: tuple[Engine, ...] = ("libfuse", "kernel")
FOLDERS = 100
Times = dict[tuple[str, str, str], list[float]]  # engine, subject, what


def make(project: Path, content: dict[str, Path | bytes]) -> None:
    """A repository with these files, and a second version that adds one."""
    with shardfs.init(project) as repo:
        for name, source in content.items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, Path):
                shutil.copyfile(source, path)
            else:
                path.write_bytes(source)
        repo.import_directory(project, "one")
        (project / "another").write_bytes(b"another")
        repo.add([project / "another"])
        repo.commit("two")


@contextmanager
def mounted(project: Path, engine: Engine) -> Iterator[tuple[list[Path], int]]:
    """A fresh mount: the directories of its versions, and the daemon."""
    point = project.with_name("models")
    record = session.mount(point, project, MountOptions(engine=engine))
    try:
        time.sleep(0.7)  # until the daemon has set the readahead
        yield [(point / "versions" / name).resolve() for name in sorted(os.listdir(point / "versions"))], record.pid
    finally:
        session.unmount(point)


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def list_seconds(folder: str) -> float:
    """Of `ls -lR`."""
    start = time.perf_counter()
    subprocess.run(["ls", "-lR", folder], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure_file(project: Path, engine: Engine, name: str, times: Times) -> None:
    """One mount, four reads."""
    with mounted(project, engine) as (versions, pid):
        before = processor_seconds(pid)
        times[engine, project.parent.name, "cold"].append(read_seconds(versions[1] / name))
        times[engine, project.parent.name, "cpu"].append(processor_seconds(pid) - before)
        times[engine, project.parent.name, "again"].append(read_seconds(versions[1] / name))
        times[engine, project.parent.name, "second version"].append(read_seconds(versions[0] / name))


def measure_tree(project: Path, engine: Engine, times: Times) -> None:
    """One mount, three listings; the last one after more than the time for which refs may be kept."""
    with mounted(project, engine) as (_, pid):
        folder = f"{project.with_name('models')}/latest/"
        before = processor_seconds(pid)
        times[engine, project.parent.name, "cold"].append(list_seconds(folder))
        times[engine, project.parent.name, "cpu"].append(processor_seconds(pid) - before)
        times[engine, project.parent.name, "again"].append(list_seconds(folder))
        time.sleep(1.5)
        times[engine, project.parent.name, "later"].append(list_seconds(folder))


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=10_000)
    given = parser.parse_args()
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        work = Path(name)
        sizes = {}
        for number, file in enumerate(given.file):
            subject = f"{number}-{file.name}"
            sizes[subject] = file.stat().st_size
            make(work / subject / "project", {file.name: file})
            for engine in ENGINES * given.repeats:
                measure_file(work / subject / "project", engine, file.name, times)
        tree = {f"{n % FOLDERS:02d}/{n:05d}": b"%d" % n for n in range(given.files)}
        make(work / "tree" / "project", dict(tree))
        for engine in ENGINES * given.repeats:
            measure_tree(work / "tree" / "project", engine, times)
    print(f"## Engines\n\n{machine()} of {given.repeats} runs.\n")
    rows = [
        [f"{engine}, {subject} ({size / MB:.0f} MB)"]
        + [f"{size / MB / median(times[engine, subject, what]):.0f}" for what in ("cold", "again", "second version")]
        + [f"{median(times[engine, subject, 'cpu']):.2f}"]
        for subject, size in sizes.items()
        for engine in ENGINES
    ]
    print(table(["", "cold, MB/s", "again, MB/s", "second version, MB/s", "daemon's processor time, s"], rows) + "\n")
    rows = [
        [engine] + [f"{median(times[engine, 'tree', what]) * 1000:.0f}" for what in ("cold", "again", "later", "cpu")]
        for engine in ENGINES
    ]
    print(table([f"ls -lR, {given.files} files", "cold, ms", "again, ms", "later, ms", "daemon, ms"], rows))


if __name__ == "__main__":
    main()
