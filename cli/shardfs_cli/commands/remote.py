"""`shardfs remote`."""

from __future__ import annotations

import os

import click

from shardfs_cli import output
from shardfs_cli.command import OPENS, WRITES, group
from shardfs_cli.context import Context, file_path


@group(
    "remote",
    exits=WRITES,
    examples=("shardfs remote add origin http://127.0.0.1:8750/demo", "shardfs remote list"),
    invoke_without_command=True,
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, add and remove remotes: other places that hold the same history."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_remotes)


@command.command("add", exits=WRITES, examples=("shardfs remote add backup /mnt/backup/models",))
@click.argument("name")
@click.argument("url")
@click.pass_obj
def add(context: Context, name: str, url: str) -> None:
    """Remember URL (http, https or a directory) as remote NAME."""
    with context.repository() as repository:
        repository.add_remote(name, absolute(url))
        found = repository.remotes()[name]
    if context.output.json:
        context.output.document({"name": name, "url": found})
    context.output.note(f"remote {name} is {output.name(found)}")


@command.command("rm", exits=WRITES, examples=("shardfs remote rm backup",))
@click.argument("name")
@click.pass_obj
def remove(context: Context, name: str) -> None:
    """Forget remote NAME and what was known of its branches. The remote itself stays as it is."""
    with context.repository() as repository:
        url = repository.remotes().get(name)
        repository.remove_remote(name)
    if context.output.json:
        context.output.document({"name": name, "url": url})
    context.output.note(f"forgot remote {name}")


@command.command("list", exits=OPENS, examples=("shardfs remote list --json",))
@click.pass_obj
def list_remotes(context: Context) -> None:
    """List remotes."""
    with context.repository() as repository:
        remotes = repository.remotes()
    if context.output.json:
        context.output.document([{"name": name, "url": url} for name, url in sorted(remotes.items())])
        return
    context.output.lines(output.table([(name, output.name(url)) for name, url in sorted(remotes.items())]))


def absolute(url: str) -> str:
    """A URL as it is; a directory, which has no scheme, from the root: it is used from other directories later."""
    if "://" in url:
        return url
    return os.path.abspath(file_path(url).expanduser())  # noqa: PTH100 - without "..", and links stay what they are
