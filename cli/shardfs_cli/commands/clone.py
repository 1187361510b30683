"""`shardfs clone`."""

from __future__ import annotations

import click

from shardfs.errors import UsageError
from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.commands.fetch import plan_json, show_plan
from shardfs_cli.commands.remote import absolute
from shardfs_cli.context import Context, file_path
from shardfs_cli.link import bwlimit
from shardfs_cli.progress import bar


@define(
    "clone",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs clone http://127.0.0.1:8750/demo",
        "shardfs clone --full /mnt/backup/models copy",
        "shardfs clone http://127.0.0.1:8750/demo --branch main --filter 'size<10M'",
        "shardfs clone http://127.0.0.1:8750/demo --filter 'path=tokenizer*' --filter 'path=config.json'",
    ),
)
@click.argument("url")
@click.argument("directory", required=False)
@click.option("--full", is_flag=True, help="Copy all contents now; the same as --filter all.")
@click.option(
    "--filter",
    "filters",
    metavar="WHAT",
    multiple=True,
    help="What shall be here: none, all, path=GLOB, size<SIZE, branch=GLOB; may be given several times.",
)
@click.option("--branch", metavar="NAME", help="Follow this branch only, and check it out.")
@click.option("--dry-run", is_flag=True, help="Make nothing; say what would come.")
@bwlimit
@click.pass_obj
def command(
    context: Context,
    url: str,
    directory: str | None,
    *,
    full: bool,
    filters: tuple[str, ...],
    branch: str | None,
    dry_run: bool,
) -> None:
    """Copy history and metadata of the repository at URL into DIRECTORY (default: the last part of URL).

    Contents come when they are read, through a mount or by `checkout`. Those that --filter picks of the newest versions
    are copied now, and by later fetches: at or below a path that matches, or smaller than a size. With --full all are
    copied now. A clone that was interrupted, or lost the network, goes on where it was when it is run again.
    """
    import shardfs

    out = context.output
    if dry_run:
        from shardfs.wiring import expect_first

        planned = shardfs.plan_clone(absolute(url), full=full, filters=filters, branch=branch)
        speed = expect_first(planned.bytes)
        show_plan(context, url, planned, speed)
        if out.json:
            out.document(plan_json("origin", planned, speed))
        return
    target = file_path(_last_part(url) if directory is None else directory)
    with (
        bar(context, "clone") as progress,
        shardfs.clone(
            absolute(url), target, full=full, filters=filters, branch=branch, progress=progress
        ) as repository,
    ):
        head, current = repository.head_commit(), repository.current_branch()
        found = repository.remotes()["origin"]
    if out.json:
        commit = head.hex() if head else None
        out.document({"directory": str(target), "url": found, "branch": current, "commit": commit})
    at = f"{current} at {short(head)}" if head else f"{current}, no commits yet"
    out.note(f"cloned {output.name(found)} into {output.name(str(target))} ({at})")


def _last_part(url: str) -> str:
    name = url.rstrip("/").rpartition("/")[2]
    if not name or name in (".", "..") or ("://" in url and url.count("/") < 3):
        msg = "the URL has no name at its end; give a directory"  # it may have a password, which is not repeated
        raise UsageError(msg)
    return name
