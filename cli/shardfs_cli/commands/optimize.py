"""`shardfs optimize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.numbers import Amount
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.maintenance.optimize import OptimizeReport


@define("optimize", exits=READS_AND_WRITES, examples=("shardfs optimize --dry-run", "shardfs optimize"))
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option(
    "--grace",
    type=Amount(min=0, max=1e6),
    metavar="HOURS",
    help="Keep packs that are younger than this if something in them is not needed (default: 24).",
)
@click.pass_context
def command(ctx: click.Context, *, dry_run: bool, grace: float | None) -> None:
    """Store branches and tags so that they are read quickly, and merge small packs.

    The newest versions are stored by themselves and older ones as differences to them; no id changes. While it
    runs, the disk needs room for what is stored anew beside what it replaces. A run that was interrupted goes on with
    the next one.
    """
    context = ctx.ensure_object(Context)
    out = context.output
    with context.repository() as repository, bar(context, "optimize") as progress:
        seconds = None if grace is None else grace * 3600
        report = repository.optimize(dry_run=dry_run, grace_s=seconds, progress=progress)
    for problem in report.problems:
        out.warn(output.name(problem))
    if out.json:
        out.document(
            {
                "dry_run": report.dry_run,
                "packs": {"before": report.packs_before, "after": report.packs_after},
                "bytes": {"before": report.bytes_before, "after": report.bytes_after},
                "tip_depth": {"before": report.tip_depth_before, "after": report.tip_depth_after},
                "heads_depth": {"before": report.heads_depth_before, "after": report.heads_depth_after},
                "rewritten": report.rewritten,
                "encoded": report.encoded,
                "moved": report.moved,
                "elsewhere": report.elsewhere,
                "kept_young": report.kept_young,
                "problems": report.problems,
                "seconds": round(report.seconds, 3),
            }
        )
    else:
        _show(out, report)
    if report.problems:
        ctx.exit(ExitStatus.INTEGRITY)


def _show(out: output.Output, report: OptimizeReport) -> None:
    chunks, packs = output.count(report.encoded, "chunk"), output.count(report.rewritten, "pack")
    if report.dry_run:
        out.note(f"would encode {chunks} and rewrite {packs} of {report.packs_before}")
    else:
        out.note(f"encoded {chunks} and rewrote {packs}; {report.packs_before} packs are now {report.packs_after}")
        out.note(f"stored bytes: {output.size(report.bytes_before)} before, {output.size(report.bytes_after)} now")
    out.note(f"chunks to decode before one of the tip: {report.tip_depth_before} before, {report.tip_depth_after} now")
    if report.kept_young:
        out.note(f"{output.count(report.kept_young, 'pack')} too young: run it again tomorrow")
    if report.elsewhere:
        out.note(f"{output.count(report.elsewhere, 'chunk')} left alone: they are at a remote")
