"""`shardfs show`."""

from __future__ import annotations

import json
import os

import click

from shardfs.diff.trees import changes
from shardfs_cli import describe, output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define("show", exits=READS, examples=("shardfs show", "shardfs show v1 --json"))
@click.argument("rev", default="HEAD")
@click.pass_obj
def command(context: Context, rev: str) -> None:
    """Show one commit: message, metadata, what it recorded by itself, and what it changed."""
    out = context.output
    with context.repository() as repository:
        id_, commit = repository.commit_of(rev)
        parent = repository.objects.commit(commit.parents[0]).tree if commit.parents else None
        changed = list(changes(repository.objects, parent, commit.tree))
        attached = repository.attachments(id_.hex())
        names = describe.names_of_commits(repository).get(id_, [])
    if out.json:
        out.document(
            {
                **describe.commit_json(id_, commit),
                "changes": [describe.change_json(change) for change in changed],
                "attached": [{"name": os.fsdecode(e.name), "size": e.size} for e in attached],
            }
        )
        return
    out.lines(describe.commit_lines(id_, commit, names, out))
    for key, value in commit.auto.items():
        out.line()
        out.line(f"{output.name(key)}:")
        out.lines(f"    {output.name(line)}" for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"))
    for entry in attached:
        out.line(f"attached: {output.name(os.fsdecode(entry.name))}  {output.size(entry.size)}")
    out.line()
    out.lines(output.table([describe.change_row(change, out) for change in changed]))
    out.line(describe.summary(changed))
