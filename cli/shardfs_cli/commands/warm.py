"""`shardfs warm`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.link import bwlimit
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.caching import Presence, WarmReport
    from shardfs.progress import Progress
    from shardfs.repository import Repository

_STALL_S = 5.0  # beyond the deadline of a remote, within which a mount answers every read


@define(
    "warm",
    exits=READS,
    examples=(
        "shardfs warm v1",
        "shardfs warm HEAD:weights --page-cache",
        "shardfs warm v1 --check",
    ),
)
@click.argument("where", metavar="REV[:PATH]")
@click.option("--page-cache", is_flag=True, help="Also read the files, through a mount if there is one, into memory.")
@click.option("--check", is_flag=True, help="Change nothing; say what is here.")
@bwlimit
@click.pass_obj
def command(context: Context, where: str, *, page_cache: bool, check: bool) -> None:
    """Bring the files of a revision to this disk as plain files, which programs read without decoding.

    What is here already is not fetched again: run it again after an interruption. The files are in the cache and may be
    evicted when room is needed; `shardfs pin` keeps them. Single tensors, and contents as they are stored, are brought
    by `shardfs prefetch`.
    """
    if check and page_cache:
        msg = "--page-cache and --check cannot be combined"
        raise UsageError(msg)
    with context.repository() as repository:
        rev, path = context.place(repository, where)
        commit = repository.resolve(rev).hex()
        if check:
            _show(context, where, commit, repository.presence(rev, path))
            return
        with bar(context, "warm") as progress:
            report = repository.warm(rev, path, page_cache=page_cache, progress=progress)
            through = _read_mount(context, repository, rev, path, progress) if page_cache else None
    show_report(context, where, commit, report, through)


def show_report(context: Context, where: str, commit: str, report: WarmReport, through: int | None = None) -> None:
    """Print what was brought here; `through` are bytes that were read from a mount, None if nobody wanted that."""
    out = context.output
    if out.json:
        document = {
            "commit": commit,
            "files": report.files,
            "bytes": report.bytes,
            "fetched_bytes": report.fetched_bytes,
            "made": report.made,
            "made_bytes": report.made_bytes,
            "page_cache_bytes": report.page_cache_bytes,
            "mount_bytes": through or 0,
        }
        out.document(document)
        return
    what = output.count(report.files, "file")
    fetched = f"fetched {output.size(report.fetched_bytes)}" if report.fetched_bytes else "nothing to fetch"
    made = f", {output.count(report.made, 'plain file')} made" if report.made else ""
    read = max(report.page_cache_bytes, through or 0)  # the same files in two places
    memory = f", {output.size(read)} read into memory" if read or through is not None else ""
    out.note(f"{output.name(where)}: {what}, {output.size(report.bytes)}; {fetched}{made}{memory}")


def _show(context: Context, where: str, commit: str, found: Presence) -> None:
    rows = (
        ("in packs here", found.packs),
        ("more in the cache", found.cache),
        ("plain files", found.plain),
        ("only at a remote", found.missing),
    )
    out = context.output
    if out.json:
        out.document(
            {
                "commit": commit,
                "files": found.files,
                "bytes": found.bytes,
                "packs_bytes": found.packs,
                "cache_bytes": found.cache,
                "plain_files": found.plain_files,
                "plain_bytes": found.plain,
                "missing_bytes": found.missing,
            }
        )
        return
    out.line(f"{output.name(where)}: {output.count(found.files, 'file')}, {output.size(found.bytes)}")
    cells = [(name, output.size(size), f"{_share(size, found.bytes)}%") for name, size in rows]
    out.lines(output.table(cells, right=(1, 2), indent="  "))


def _share(part: int, whole: int) -> int:
    """Per cent, rounded down: 100 is all."""
    return 100 * part // whole if whole else 100


def _read_mount(context: Context, repository: Repository, rev: str, path: str, progress: Progress | None) -> int:
    """Read the same files through a mount of the repository, if there is one that answers; returns the bytes."""
    from shardfs.formats.tree import FileEntry
    from shardfs.mount import reading

    point = reading.mount_of(repository.store_path)
    if point is None:
        return 0
    root = point / "commits" / repository.resolve(rev).hex()
    found = [(root.joinpath(*map(_text, names)), e) for names, e in repository.walk(rev, path) if type(e) is FileEntry]
    total = sum(entry.size for _, entry in found)

    def told(done: int) -> None:
        if progress is not None:
            progress(done, total, "reading the mount")

    try:
        return reading.read_all([file for file, _ in found], repository.settings.deadline_s + _STALL_S, told)
    except OSError as error:
        context.output.warn(f"{output.name(str(point))}: {error}; its pages are not in memory")
        return 0


def _text(name: bytes) -> Path:
    return Path(name.decode("utf-8", "surrogateescape"))
