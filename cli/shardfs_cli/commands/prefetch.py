"""`shardfs prefetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardfs.errors import UsageError
from shardfs_cli import expected, output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.link import bwlimit
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.caching import Absent


@define(
    "prefetch",
    exits=READS,
    examples=(
        "shardfs prefetch v3:model.safetensors",
        "shardfs prefetch v3 --tensors 'layers.0.*'",
        "shardfs prefetch v3 --dry-run",
        "shardfs prefetch v3 --check   # before a trip",
    ),
)
@click.argument("where", metavar="REV[:PATH]")
@click.option("--tensors", metavar="PATTERN", help="Only the tensors whose names match.")
@click.option("--dry-run", is_flag=True, help="Bring nothing; say how many bytes would come.")
@click.option("--check", is_flag=True, help="Bring nothing; list files that need a remote, and fail if any does.")
@bwlimit
@click.pass_context
def command(ctx: click.Context, where: str, *, tensors: str | None, dry_run: bool, check: bool) -> None:
    """Bring contents into the cache as they are stored, so that reading them needs no remote.

    What is here already is not fetched again: run it again after an interruption. The cache may evict it when room is
    needed; `shardfs fetch --full REV:PATH` copies contents for good, `shardfs warm` also makes plain files of them.
    """
    context = ctx.ensure_object(Context)
    if check and (dry_run or tensors is not None):
        msg = "--check cannot be combined with --dry-run or --tensors"
        raise UsageError(msg)
    out = context.output
    with context.repository() as repository:
        rev, path = context.place(repository, where)
        commit = repository.resolve(rev).hex()
        if check:
            absent = repository.absent(rev, path)
            _show_absent(context, where, commit, absent)
            ctx.exit(ExitStatus.FAILED if absent else ExitStatus.DONE)
        if dry_run:
            report = repository.plan_prefetch(rev, path, tensors=tensors)
        else:
            with bar(context, "prefetch") as progress:
                report = repository.prefetch(rev, path, tensors=tensors, progress=progress)
        speed = repository.expect("received", report.fetched_bytes) if dry_run else None
    if out.json:
        out.document({"commit": commit, "dry_run": dry_run, **report._asdict(), **expected.as_json(speed)})
        return
    what = output.count(report.files, "file")
    if report.tensors is not None:
        what = f"{output.count(report.tensors, 'tensor')} in {what}"
    verb = "would fetch" if dry_run else "fetched"
    chunks = f"{output.size(report.fetched_bytes)} in {output.count(report.chunks, 'chunk')}"
    fetched = f"{verb} {chunks}{expected.in_words(speed, 'fetch')}" if report.chunks else "nothing to fetch"
    out.note(f"{output.name(where)}: {what}, {output.size(report.bytes)}; {fetched}")


def _show_absent(context: Context, where: str, commit: str, absent: list[Absent]) -> None:
    out = context.output
    if out.json:
        out.document(
            {
                "commit": commit,
                "missing_bytes": sum(file.missing_bytes for file in absent),
                "files": [{**file._asdict(), "places": list(file.places)} for file in absent],
            }
        )
        return
    for file in absent:
        out.line(output.name(str(file)))
    if not absent:
        out.note(f"{output.name(where)}: all of it can be read without a remote")
