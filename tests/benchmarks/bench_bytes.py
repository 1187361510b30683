"""Store real series of checkpoints with shardfs and its peers, and count the bytes.

    python -m tests.benchmarks.bench_bytes [--series DIR] [--only NAME ...] [--rows WORD ...] [--quick]

Each version is copied over the one before and committed. What counts is everything that a tool keeps after the last
commit: packs or chunks, metadata, indexes, databases. Every version of every series is read back from shardfs twice,
by `export` and through a real mount, and compared byte by byte. DIR keeps the series for other runs; see series.py.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import schemes
from tests.benchmarks.measuring import MB, READ_DEADLINE_S, invocation, run, size_of, table, with_ratio
from tests.benchmarks.series import BYTES, QUICK, Series, files_of
from tests.benchmarks.tools import VERSIONED, Shardfs, Tool, commands, present

EXPORT = "shardfs -C project export HEAD~{} ../export"


@dataclass(frozen=True)
class Chunks:
    """What deduplication alone leaves of a series.

    Attributes:
        references: chunks of all files, each time they occur.
        distinct: bytes of the distinct ones before encoding.
    """

    references: int
    distinct: int


@dataclass
class Row:
    """What one series took.

    Attributes:
        series: which.
        plain: bytes of its files.
        stored: bytes by name of the tool or scheme.
        chunks: by name, where it can be told.
        cached: bytes that shardfs left in its cache, which may be lost.
        other_name: bytes that shardfs stored for the last file under a second name.
    """

    series: Series
    plain: int
    stored: dict[str, int] = field(default_factory=dict)
    chunks: dict[str, Chunks] = field(default_factory=dict)
    cached: int = 0
    other_name: int = 0


def commit_all(running: Tool, series: Series, files: list[Path]) -> None:
    """Commit the files one after the other, as versions 1 to n."""
    running.do_create()
    for number, file in enumerate(files, start=1):
        shutil.copyfile(file, running.project / series.name_of(file))
        running.do_commit(number)


def read_back(running: Tool, series: Series, files: list[Path]) -> None:
    """Compare every version, exported and mounted.

    Raises:
        SystemExit: a version has other bytes than were committed.
    """
    exported = running.scratch / "export"
    running.do_mount(len(files))
    try:
        expected: dict[str, Path] = {}
        for number, file in enumerate(files, start=1):
            expected[series.name_of(file)] = file
            run(shlex.split(EXPORT.format(len(files) - number)), running.scratch, running.environment())
            compare(exported, expected)
            shutil.rmtree(exported)
            compare(running.mountpoint / "versions" / f"{number:04d}-v{number}", expected)
    finally:
        running.do_unmount()


def compare(folder: Path, expected: dict[str, Path]) -> None:
    """Let `cmp` read every file: a mount that hangs can be given up then."""
    if (names := sorted(path.name for path in folder.iterdir())) != sorted(expected):
        raise SystemExit(f"{folder} holds {names} instead of {sorted(expected)}")
    for name, original in expected.items():
        done = subprocess.run(["cmp", original, folder / name], check=False, timeout=READ_DEADLINE_S)
        if done.returncode:
            raise SystemExit(f"{folder / name} has other bytes than {original}")


def chunks_of(project: Path) -> Chunks:
    """The chunks of the files of all versions in a repository; a file that is in many versions counts once."""
    import shardfs
    from shardfs.formats.tree import FileEntry

    with shardfs.open(project) as repo:
        files = {
            (entry.manifest, entry.chunk): repo.open_entry(entry).manifest.chunks
            for version in repo.versions()
            for _, entry in repo.walk(version.commit.hex())
            if isinstance(entry, FileEntry)
        }
    sizes = {chunk.id: chunk.size for chunks in files.values() for chunk in chunks}
    return Chunks(sum(map(len, files.values())), sum(sizes.values()))


def cost_of_other_name(running: Tool, series: Series, files: list[Path]) -> int:
    """Bytes that the last file costs under another name."""
    before = running.stored()
    shutil.copyfile(files[-1], running.project / f"other-{series.name_of(files[-1])}")
    running.do_commit(len(files) + 1)
    return running.stored() - before


def measure(series: Series, files: list[Path], tools: list[type[Tool]], names: list[str], work: Path) -> Row:
    """Store one series by every tool and scheme; says on stderr how far it is."""
    row = Row(series, sum(file.stat().st_size for file in files))
    for tool in tools:
        running = tool(work / tool.name)
        commit_all(running, series, files)
        row.stored[tool.name] = running.stored()
        if tool is Shardfs:
            row.cached = size_of(running.scratch / "home")
            read_back(running, series, files)
            row.chunks[tool.name] = chunks_of(running.project)
            row.other_name = cost_of_other_name(running, series, files)
        shutil.rmtree(running.scratch)
        print(f"{series.title}: {tool.name} {row.stored[tool.name] / MB:.1f} MB", file=sys.stderr)
    for name in names:
        if (summary := schemes.store(name, files)) is None:
            continue
        row.stored[name] = summary.stored
        if name == "xet-like":
            row.chunks[name] = Chunks(summary.references, summary.distinct)
        print(f"{series.title}: {name} {summary.stored / MB:.1f} MB", file=sys.stderr)
    return row


def cell(row: Row, name: str) -> str:
    """MB of a tool, in brackets how many times those of shardfs."""
    if name not in row.stored:
        return "crashed"
    base = row.stored.get(Shardfs.name)
    return with_ratio(row.stored[name] / MB, base / MB if base else None, 1)


def stored_table(rows: list[Row], names: list[str]) -> str:
    """One line for each series."""
    others = [name for name in names if name != Shardfs.name]
    lines = []
    for row in rows:
        base = row.stored.get(Shardfs.name)
        target = row.series.target
        lines.append(
            [
                row.series.title,
                f"{row.plain / MB:.1f}",
                f"**{base / MB:.1f}**" if base else "-",
                f"<= {target:.0f}" if target else "-",
                *(cell(row, name) for name in others),
            ]
        )
    return table(["MB stored", "plain files", "shardfs", "target", *others], lines)


def chunks_table(rows: list[Row]) -> str:
    """What deduplication alone leaves, in how many chunks."""
    holders = [name for name in (Shardfs.name, "xet-like") if any(name in row.chunks for row in rows)]
    head = ["deduplication alone"]
    for name in holders:
        head += [f"{name}, MB", "in chunks"]
    lines = []
    for row in rows:
        line = [row.series.title]
        for name in holders:
            line += [f"{row.chunks[name].distinct / MB:.1f}", str(row.chunks[name].references)]
        lines.append([*line, row.series.chunk_target])
    return table([*head, "target"], lines)


def shardfs_table(rows: list[Row]) -> str:
    """What shardfs takes beside the series: a second name, and the cache."""
    head = ["shardfs", "last file under a second name, KB", "cache, MB"]
    lines = [[row.series.title, f"{row.other_name / 1000:.1f}", f"{row.cached / MB:.1f}"] for row in rows]
    return table(head, lines)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, help="folder of the series; what is missing in it is made")
    parser.add_argument("--only", nargs="+", help="names of tools")
    parser.add_argument("--rows", nargs="+", help="words of titles of series")
    parser.add_argument("--quick", action="store_true", help="three files of three series")
    given = parser.parse_args()
    tools = [tool for tool in present(VERSIONED) if not given.only or tool.name in given.only]
    names = schemes.present(given.only)
    wanted = [
        series
        for series in (QUICK if given.quick else BYTES)
        if not given.rows or any(word in series.title for word in given.rows)
    ]
    with tempfile.TemporaryDirectory(prefix="shardfs-bench-") as name:
        work = Path(name)
        folder = (given.series or work / "series").absolute()
        rows = [measure(series, files_of(series, folder), tools, names, work) for series in wanted]
    print(f"## Bytes stored for series of checkpoints\n\nMade by `{invocation()}`.\n")
    if Shardfs in tools:
        print("Every version was read back by `shardfs export` and through a mount, and compared byte by byte.\n")
    if names:
        print(f"{schemes.ABOUT}\n")
    print(stored_table(rows, [tool.name for tool in tools] + names) + "\n")
    if any(row.chunks for row in rows):
        print(chunks_table(rows) + "\n")
    if Shardfs in tools:
        print(shardfs_table(rows) + "\n")
    print(commands(tools) + "\n\n" + schemes.commands(names))


if __name__ == "__main__":
    main()
