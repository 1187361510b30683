"""`shardfs logout`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define("logout", examples=("shardfs logout https://models.example.org/team",))
@click.argument("url")
@click.pass_obj
def command(context: Context, url: str) -> None:
    """Forget the token that `shardfs login` keeps for URL. The server still takes it from whoever has it."""
    from shardfs import login

    login.logout(url)
    if context.output.json:
        context.output.document({"url": url})
    context.output.note(f"logged out of {output.name(url)}")
