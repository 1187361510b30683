"""`shardfs pull`."""

from __future__ import annotations

import click

from shardfs.history.revisions import short
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.progress import bar


@define("pull", exits=READS_AND_WRITES, examples=("shardfs pull", "shardfs pull origin main"))
@click.argument("remote", default="origin")
@click.argument("branch", required=False)
@click.pass_obj
def command(context: Context, remote: str, branch: str | None) -> None:
    """Fetch from REMOTE (default: origin), then move BRANCH (default: the current one) forward to the remote's.

    Unchanged files of the work tree follow. A branch that has commits of its own is not moved: exit status 15.
    """
    out = context.output
    with context.repository() as repository, bar(context, "pull") as progress:
        report = repository.pull(remote, branch, progress=progress)
    if out.json:
        out.document(
            {
                "remote": remote,
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
