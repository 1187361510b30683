"""`shardfs completion`."""

from __future__ import annotations

import click

from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define(
    "completion",
    examples=('eval "$(shardfs completion bash)"', "shardfs completion fish > ~/.config/fish/completions/shardfs.fish"),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL."""
    from click.shell_completion import get_completion_class

    class_ = get_completion_class(shell)
    assert class_ is not None
    script = class_(ctx.find_root().command, {}, "shardfs", "_SHARDFS_COMPLETE").source()
    out = ctx.ensure_object(Context).output
    if out.json:
        out.document({"shell": shell, "script": script})
        return
    out.line(script)
