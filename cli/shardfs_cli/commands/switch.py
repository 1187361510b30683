"""`shardfs switch`."""

from __future__ import annotations

import click

from shardfs.errors import UsageError
from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define(
    "switch",
    exits=READS_AND_WRITES,
    examples=("shardfs switch main", "shardfs switch -c experiment v1", "shardfs switch --detach HEAD~2"),
)
@click.argument("name")
@click.argument("start", required=False)
@click.option("-c", "--create", is_flag=True, help="Make branch NAME at START (default: HEAD) first.")
@click.option("-d", "--detach", is_flag=True, help="NAME is a revision; no branch is current then.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files whose content is stored nowhere.")
@click.pass_obj
def command(context: Context, name: str, start: str | None, *, create: bool, detach: bool, force: bool) -> None:
    """Make branch NAME the current one. Tracked files of the work tree that differ there are replaced."""
    if (create and detach) or (start is not None and not create):
        msg = "-c makes a branch, at START if given; --detach takes a revision only"
        raise UsageError(msg)
    with context.repository() as repository:
        report = repository.switch(name, create=create, detach=detach, start=start or "HEAD", force=force)
    out = context.output
    if out.json:
        out.document(
            {
                "branch": report.branch,
                "commit": report.commit.hex() if report.commit else None,
                "updated": report.updated,
                "removed": report.removed,
            }
        )
        return
    at = f"at {short(report.commit)}" if report.commit else "no commits yet"
    out.note(f"on branch {report.branch}, {at}" if report.branch else f"HEAD is detached, {at}")
    if report.updated or report.removed:
        out.note(f"{output.count(len(report.updated), 'file')} updated, {len(report.removed)} removed")
