"""`shardfs gc`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.numbers import Amount
from shardfs_cli.progress import bar


@define("gc", exits=READS_AND_WRITES, examples=("shardfs gc --dry-run", "shardfs gc", "shardfs gc --grace 1"))
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
@click.option(
    "--grace",
    type=Amount(min=0, max=1e6),
    metavar="HOURS",
    help="Leave packs and unfinished writes alone that are younger than this (default: 24).",
)
@click.pass_context
def command(ctx: click.Context, *, dry_run: bool, grace: float | None) -> None:
    """Delete stored data that no branch, tag, reflog or staging area needs."""
    context = ctx.ensure_object(Context)
    out = context.output
    with context.repository() as repository, bar(context, "gc") as progress:
        seconds = None if grace is None else grace * 3600
        report = repository.gc(dry_run=dry_run, grace_s=seconds, progress=progress)
    for problem in report.problems:
        out.warn(output.name(problem))
    if out.json:
        out.document(
            {
                "dry_run": report.dry_run,
                "live": report.live,
                "live_bytes": report.live_bytes,
                "dropped": [pack.hex() for pack in report.dropped],
                "rewritten": [pack.hex() for pack in report.rewritten],
                "freed_bytes": report.freed_bytes,
                "kept_young": report.kept_young,
                "stale_files": report.stale_files,
                "problems": report.problems,
            }
        )
    else:
        done = "would free" if dry_run else "freed"
        young = f"; {output.count(report.kept_young, 'pack')} too young" if report.kept_young else ""
        dropped, rewritten = output.count(len(report.dropped), "pack"), len(report.rewritten)
        out.note(f"{done} {output.size(report.freed_bytes)}: {dropped} deleted, {rewritten} rewritten{young}")
    if report.problems:
        ctx.exit(ExitStatus.INTEGRITY)
