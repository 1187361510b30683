"""`shardfs clone`."""

from __future__ import annotations

import click

from shardfs.errors import UsageError
from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.commands.remote import absolute
from shardfs_cli.context import Context, file_path
from shardfs_cli.progress import bar


@define(
    "clone",
    exits=READS_AND_WRITES,
    examples=("shardfs clone http://127.0.0.1:8750/demo", "shardfs clone --full /mnt/backup/models copy"),
)
@click.argument("url")
@click.argument("directory", required=False)
@click.option("--full", is_flag=True, help="Copy all contents now.")
@click.pass_obj
def command(context: Context, url: str, directory: str | None, *, full: bool) -> None:
    """Copy history and metadata of the repository at URL into DIRECTORY (default: the last part of URL).

    Contents come when they are read, through a mount or by `checkout`; with --full at once.
    """
    import shardfs

    target = file_path(_last_part(url) if directory is None else directory)
    with (
        bar(context, "clone") as progress,
        shardfs.clone(absolute(url), target, full=full, progress=progress) as repository,
    ):
        head, branch = repository.head_commit(), repository.current_branch()
        found = repository.remotes()["origin"]
    out = context.output
    if out.json:
        commit = head.hex() if head else None
        out.document({"directory": str(target), "url": found, "branch": branch, "commit": commit})
    at = f"{branch} at {short(head)}" if head else f"{branch}, no commits yet"
    out.note(f"cloned {output.name(found)} into {output.name(str(target))} ({at})")


def _last_part(url: str) -> str:
    name = url.rstrip("/").rpartition("/")[2]
    if not name or name in (".", "..") or ("://" in url and url.count("/") < 3):
        msg = f"{url} has no name at its end; give a directory"
        raise UsageError(msg)
    return name
