"""`shardfs tag`."""

from __future__ import annotations

import click

from shardfs.errors import UsageError
from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define("tag", exits=WRITES, examples=("shardfs tag", "shardfs tag best HEAD~1", "shardfs tag -d best"))
@click.argument("name", required=False)
@click.argument("rev", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete tag NAME.")
@click.option("-f", "--force", is_flag=True, help="Move tag NAME if it exists.")
@click.pass_obj
def command(context: Context, name: str | None, rev: str | None, *, delete: bool, force: bool) -> None:
    """List tags; or make tag NAME at REV (default: HEAD); or delete one."""
    out = context.output
    if (delete and (name is None or rev is not None)) or (force and (delete or name is None)):
        msg = "-d takes one tag; -f makes one"
        raise UsageError(msg)
    with context.repository() as repository:
        if name is None:
            tags = repository.tags()
            if out.json:
                out.document([{"name": tag, "commit": commit.hex()} for tag, commit in tags.items()])
                return
            out.lines(output.table([(tag, short(commit)) for tag, commit in tags.items()]))
            return
        commit = repository.delete_tag(name) if delete else repository.create_tag(name, rev or "HEAD", force=force)
    if out.json:
        out.document({"name": name, "commit": commit.hex(), "deleted": delete})
    out.note(f"deleted tag {name} (was {short(commit)})" if delete else f"tag {name} at {short(commit)}")
