"""`shardfs pin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.commands.warm import show_report
from shardfs_cli.context import Context
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.caching import PinState


@define("pin", exits=READS, examples=("shardfs pin v1", "shardfs pin HEAD:weights", "shardfs pin"))
@click.argument("where", metavar="[REV[:PATH]]", required=False)
@click.pass_obj
def command(context: Context, where: str | None) -> None:
    """Bring the files of a revision here as `warm` does, and never evict them; without REV list what is pinned.

    The list has the pins of all repositories of this user, which share one cache. What does not fit into cache.size is
    refused before anything is fetched. gc keeps the commits of pins.
    """
    with context.repository() as repository:
        if where is None:
            _list(context, repository.pins())
            return
        rev, path = context.place(repository, where)
        commit = repository.resolve(rev).hex()
        with bar(context, "pin") as progress:
            report = repository.pin(rev, path, progress=progress)
    show_report(context, where, commit, report)


def _list(context: Context, found: list[PinState]) -> None:
    out = context.output
    if out.json:
        out.document(
            [
                {
                    "repository": state.pin.repository,
                    "revision": state.pin.revision,
                    "path": state.pin.path,
                    "commit": state.pin.commit.hex(),
                    "files": len(state.pin.files),
                    "bytes": state.pin.size,
                    "here_bytes": state.here,
                    "is_gone": state.is_gone,
                }
                for state in found
            ]
        )
        return
    rows = [
        (
            output.name(state.pin.name),
            state.pin.commit.hex()[:12],
            output.size(state.pin.size),
            "here" if state.here == state.pin.size else f"{output.size(state.here)} here",
            output.name(state.pin.repository) + (" (gone)" if state.is_gone else ""),
        )
        for state in found
    ]
    out.lines(output.table(rows, right=(2,)))
