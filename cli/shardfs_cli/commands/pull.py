"""`shardfs pull`."""

from __future__ import annotations

import click

from shardfs.history.revisions import short
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.commands.fetch import plan_json, show_plan
from shardfs_cli.context import Context
from shardfs_cli.link import bwlimit
from shardfs_cli.progress import bar


@define("pull", exits=READS_AND_WRITES, examples=("shardfs pull", "shardfs pull origin main", "shardfs pull --dry-run"))
@click.argument("remote", required=False)
@click.argument("branch", required=False)
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would come.")
@bwlimit
@click.pass_obj
def command(context: Context, remote: str | None, branch: str | None, *, dry_run: bool) -> None:
    """Fetch from REMOTE, then move BRANCH (default: the current one) forward to the remote's.

    REMOTE is by default where the branch was cloned from or last pushed to with --set-upstream, else origin. Unchanged
    files of the work tree follow. A branch that has commits of its own is not moved: exit status 15.
    """
    out = context.output
    with context.repository() as repository:
        source = remote or repository.upstream(branch)
        if dry_run:
            planned = repository.plan_fetch(source)
            speed = repository.expect("received", planned.bytes, source)
            show_plan(context, source, planned, speed)
            if out.json:
                out.document(plan_json(source, planned, speed))
            return
        with bar(context, "pull") as progress:
            report = repository.pull(source, branch, progress=progress)
    if out.json:
        out.document(
            {
                "remote": source,
                "branch": report.branch,
                "old": report.old.hex() if report.old else None,
                "new": report.new.hex() if report.new else None,
            }
        )
        return
    if report.old == report.new:
        out.note(f"{report.branch} is up to date")
        return
    old = short(report.old) if report.old else "no commits"
    out.note(f"{report.branch}  {old} -> {short(report.new) if report.new else 'no commits'}")
