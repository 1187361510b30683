"""List small trees through mounts: many versions, and one large directory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.benchmarks.measuring import drop_page_cache, median, table, with_ratio
from tests.benchmarks.mounts import peers
from tests.benchmarks.tools import Borg, Restic, Squashfs, Tool, present

VERSIONS: Final = 20
FILES: Final = 500  # of each version, in folders of 50
ENTRIES: Final = 10_000  # of the large directory
SETTLED_S: Final = 1.5  # longer than any file system here keeps names that may change


class AllOfBorg(Borg):
    """A mount of all archives."""

    mount = "borg mount store mnt"

    def folder_of(self, number: int) -> Path:
        del number
        return self.mountpoint


@dataclass(frozen=True)
class Listed:
    """A tool, and where its mount has the versions; None: it keeps none, so it stores copies side by side."""

    tool: type[Tool]
    versions: str | None = None


# Without casync, which takes 20 s for one of these, and rclone, which asks the web server for each file.
MEASURED = (
    Listed(peers.Cold, "versions/*"),
    Listed(peers.Libfuse, "versions/*"),
    Listed(peers.Plain),
    Listed(peers.Erofs),
    Listed(peers.SquashfsKernel),
    Listed(Squashfs),
    Listed(AllOfBorg, "v*/project"),
    Listed(Restic, "snapshots/2*/project"),
    Listed(peers.Ratarmount),
)
COLUMNS = ("20 versions, first", "20 versions, again", "10 000 entries, first", "again", "names alone, again")
Times = dict[tuple[str, str], list[float]]  # tool, column


def seconds_of(folders: Sequence[Path], *options: str) -> float:
    """Of `ls` of directories, each with its slash, so that links are followed."""
    start = time.perf_counter()
    done = subprocess.run(["ls", *options, *(f"{folder}/" for folder in folders)], stdout=subprocess.PIPE, check=True)
    taken = time.perf_counter() - start
    if not done.stdout:
        raise SystemExit(f"{folders[0]}: empty")
    return taken


def fill(folder: Path, version: int, files: int) -> None:
    """Write files of a few bytes, 50 per folder; each version changes one in ten."""
    for number in range(files):
        path = folder / f"{number // 50:03d}" / f"{number:05d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d %d" % (number, version if number % 10 == 0 else 0))


def stored_versions(listed: Listed, scratch: Path) -> Tool:
    """A store of VERSIONS versions of a tree."""
    running = listed.tool(scratch)
    running.do_create()
    for version in range(1, VERSIONS + 1):
        if listed.versions is None:
            fill(running.project / f"v{version:02d}", version, FILES)
        else:
            fill(running.project, version, FILES)
            running.do_commit(version)
    if listed.versions is None:
        running.do_commit(1)
    return running


def stored_directory(tool: type[Tool], scratch: Path, entries: int) -> Tool:
    """A store of one directory with many files."""
    running = tool(scratch)
    running.do_create()
    folder = running.project / "flat"
    folder.mkdir()
    for number in range(entries):
        (folder / f"{number:06d}").write_bytes(b"%d" % number)
    running.do_commit(1)
    return running


def measure(listed: Listed, repeats: int, work: Path, times: Times) -> None:
    """Both trees of one tool."""
    name = listed.tool.name
    running = stored_versions(listed, work / "versions")
    for _ in range(repeats):
        running.reset()
        drop_page_cache(running.scratch)
        try:
            folder = running.do_mount(VERSIONS if listed.versions else 1)
            folder = running.mountpoint if os.path.ismount(running.mountpoint) else folder
            found = sorted(folder.glob(listed.versions or "v*"))
            if len(found) != VERSIONS:
                raise SystemExit(f"{name}: {len(found)} versions")
            for column in COLUMNS[:2]:
                times[name, column].append(seconds_of(found, "-lR"))
        finally:
            running.do_unmount()
    running = stored_directory(listed.tool, work / "directory", ENTRIES)
    for _ in range(repeats):
        running.reset()
        drop_page_cache(running.scratch)
        try:
            top = running.do_mount(1)
            [flat] = [path for path in (top / "flat", top / "v1/project/flat") if path.is_dir()]
            times[name, COLUMNS[2]].append(seconds_of([flat], "-l"))
            time.sleep(SETTLED_S)
            times[name, COLUMNS[3]].append(seconds_of([flat], "-l"))
            times[name, COLUMNS[4]].append(seconds_of([flat]))
        finally:
            running.do_unmount()


def report(repeats: int, work: Path, only: Sequence[str]) -> tuple[str, Times]:
    """A table of `ls -lR` and `ls -l`, and what it was made from."""
    times: Times = defaultdict(list)
    there = present(tuple(listed.tool for listed in MEASURED), to_mount=True)
    chosen = [each for each in MEASURED if each.tool in there and (not only or each.tool.name in only)]
    for number, listed in enumerate(chosen):
        print(f"listing: {listed.tool.name}", file=sys.stderr)
        measure(listed, repeats, work / f"list{number}", times)
    lines = []
    for listed in chosen:
        name = listed.tool.name
        cells = []
        for column in COLUMNS:
            base = times.get((peers.Cold.name, column))
            cells.append(with_ratio(median(times[name, column]) * 1000, median(base) * 1000 if base else None, 0))
        lines.append([name, *cells])
    return table(["ms", *COLUMNS], lines), times
