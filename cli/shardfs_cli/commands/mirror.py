"""`shardfs mirror`."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from shardfs.errors import LockedError, RemoteError, ShardfsError, UsageError
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.commands.remote import absolute
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import status_of
from shardfs_cli.link import bwlimit
from shardfs_cli.moves import move_json, move_line, warn_of
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from pathlib import Path

    from shardfs.sharing import FetchReport

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@define(
    "mirror",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs mirror http://models.example.org/demo /srv/mirror/demo",
        "shardfs mirror http://models.example.org/demo /srv/mirror/demo --interval 60s",
    ),
)
@click.argument("url")
@click.argument("directory")
@click.option("--interval", metavar="TIME", help="Go on for ever, and look again after so long: 60s, 5min, 1h.")
@bwlimit
@click.pass_context
def command(ctx: click.Context, url: str, directory: str, *, interval: str | None) -> None:
    """Make DIRECTORY a full copy of the repository at URL, or bring it up to date: packs, branches, tags and HEAD.

    It has no work tree; `shardfs serve` and mounts may read it meanwhile. Branches that are gone at URL go here, too.
    Interrupt it at will: it goes on where it was.
    """
    context = ctx.ensure_object(Context)
    target, pause_s = file_path(directory), None if interval is None else _span(interval)
    if pause_s is None:
        report = _mirror(context, url, target)
        if report.failure is not None:
            ctx.exit(status_of(report.failure))
        if not context.output.json and not (report.moved or report.packs):
            context.output.note("up to date")
        return
    if context.output.json:
        msg = "--interval and --json cannot be combined"
        raise UsageError(msg)
    has_worked = False
    while True:
        try:
            _mirror(context, url, target)
            has_worked = True
        except ShardfsError as error:
            # What may pass by itself; a mirror that worked once was asked for rightly, whatever is wrong now.
            if not has_worked and not isinstance(error, RemoteError | LockedError):
                raise
            context.output.warn(output.name(str(error)))
        output.flush()
        time.sleep(pause_s)


def _mirror(context: Context, url: str, target: Path) -> FetchReport:
    import shardfs

    out = context.output
    with bar(context, "mirror") as progress:
        report = shardfs.mirror(absolute(url), target, progress=progress)
    warn_of(context, report)
    if out.json:
        out.document(
            {
                "directory": str(target),
                "moved": [move_json(move) for move in report.moved],
                "conflicts": report.conflicts,
                "lost": [str(error) for error in report.lost],
                "packs": report.packs,
                "bytes": report.bytes,
            }
        )
    elif report.moved or report.packs:
        out.note(f"{output.count(report.packs, 'pack')}, {output.size(report.bytes)}")
        for move in report.moved:
            out.note(move_line(move))
    return report


def _span(text: str) -> float:
    found = _SPAN.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= 30 * 86400:
        msg = f"not a time: {text!r}; write a number with s, min, h or d"
        raise UsageError(msg)
    return seconds
