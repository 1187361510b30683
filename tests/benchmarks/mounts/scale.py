"""Mounts of repositories with many commits or many files."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import shardfs
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, TreeId
from shardfs.formats.ref import BRANCHES
from shardfs.formats.tree import DirEntry, FileEntry, Tree, TreeEntry
from tests.benchmarks.measuring import MB, drop_page_cache, median, table
from tests.benchmarks.mounts import daemons, peers
from tests.benchmarks.mounts.listing import seconds_of
from tests.benchmarks.tools import Tool

COMMITS: Final = 10_000
FILES: Final = 100_000
PER_FOLDER: Final = 1_000
_FIRST_US: Final = 1_700_000_000_000_000
_MINUTE_US: Final = 60_000_000


def many_commits(project: Path, count: int = COMMITS) -> None:
    """A repository with a line of commits, each with a tree of its own."""
    with shardfs.init(project) as repo:
        tip: CommitId | None = None
        with repo.store.batch() as batch:
            for number in range(count):
                content = b"step %d" % number
                chunk = ChunkId(batch.put(Kind.CHUNK, content))
                tree = Tree.of([FileEntry(b"model.bin", len(content), chunk=chunk)])
                batch.put(Kind.TREE, tree.to_bytes())
                parents = () if tip is None else (tip,)
                time_us = _FIRST_US + number * _MINUTE_US
                commit = Commit(tree.id, parents, "Bench <bench@example.org>", time_us, f"Step {number}")
                tip = CommitId(batch.put(Kind.COMMIT, commit.to_bytes()))
        assert tip is not None
        repo.store.refs.move(BRANCHES + "main", None, tip, author="Bench <bench@example.org>", message="made")


def many_files(project: Path, count: int = FILES) -> None:
    """A repository with one commit of many files, 1 000 in a folder."""
    with shardfs.init(project) as repo:
        with repo.store.batch() as batch:
            folders: list[TreeEntry] = []
            for first in range(0, count, PER_FOLDER):
                entries: list[TreeEntry] = []
                for number in range(first, min(first + PER_FOLDER, count)):
                    content = b"%d" % number
                    chunk = ChunkId(batch.put(Kind.CHUNK, content))
                    entries.append(FileEntry(b"%06d" % number, len(content), chunk=chunk))
                tree = TreeId(batch.put(Kind.TREE, Tree.of(entries).to_bytes()))
                folders.append(DirEntry(b"%03d" % (first // PER_FOLDER), tree))
            root = TreeId(batch.put(Kind.TREE, Tree.of(folders).to_bytes()))
            commit = Commit(root, (), "Bench <bench@example.org>", _FIRST_US, "Many files")
            tip = CommitId(batch.put(Kind.COMMIT, commit.to_bytes()))
        repo.store.refs.move(BRANCHES + "main", None, tip, author="Bench <bench@example.org>", message="made")


Steps = dict[str, Callable[[Path], float]]
VERSIONS_FIRST: Final = "`ls versions`, first"
COMMITS_STEPS: Steps = {
    VERSIONS_FIRST: lambda point: seconds_of([point / "versions"]),
    "again": lambda point: seconds_of([point / "versions"]),
    "`ls -l versions`, first": lambda point: seconds_of([point / "versions"], "-l"),
    "`ls -l versions`, again": lambda point: seconds_of([point / "versions"], "-l"),
    "`ls commits`": lambda point: seconds_of([point / "commits"]),
}
FILES_STEPS: Steps = {
    "`ls -lR latest`, first": lambda point: seconds_of([point / "latest"], "-lR"),
    "again": lambda point: seconds_of([point / "latest"], "-lR"),
}


def measure(running: Tool, steps: Steps, repeats: int) -> dict[str, float]:
    """Medians: seconds until the mount is ready and of each step; bytes of the daemon, idle and at its peak."""
    seen: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        running.reset()
        drop_page_cache(running.scratch)
        start = time.perf_counter()
        try:
            running.do_mount(1)
            seen["ready"].append(time.perf_counter() - start)
            list((running.mountpoint / "latest").iterdir())
            pids = daemons.of_home(running.scratch / "home")
            seen["idle"].append(daemons.resident(pids))
            for title, step in steps.items():
                seen[title].append(step(running.mountpoint))
            seen["peak"].append(daemons.resident(pids, "VmHWM"))
        finally:
            running.do_unmount()
    return {title: median(values) for title, values in seen.items()}


def report(repeats: int, work: Path) -> tuple[str, dict[str, dict[str, float]]]:
    """A table per repository, and what it was made from."""
    found, tables = {}, []
    cases = ((f"{COMMITS} commits", many_commits, COMMITS_STEPS), (f"{FILES} files", many_files, FILES_STEPS))
    for number, (title, make, steps) in enumerate(cases):
        print(f"scale: {title}", file=sys.stderr)
        running = peers.Cold(work / f"scale{number}")
        make(running.project)
        found[title] = seen = measure(running, steps, repeats)
        head = [title, "mount ready, s", *(f"{step}, s" for step in steps), "daemon idle, MB", "peak, MB"]
        cells = [f"{seen[key]:.2f}" for key in ("ready", *steps)]
        memory = [f"{seen[key] / MB:.0f}" for key in ("idle", "peak")]
        tables.append(table(head, [["shardfs", *cells, *memory]]))
    return "\n\n".join(tables), found
