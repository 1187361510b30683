"""`shardfs mounts`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.mounting import record_json


@define("mounts", examples=("shardfs mounts", "shardfs mounts --json"))
@click.pass_obj
def command(context: Context) -> None:
    """List the mounts of this user. A dead one has lost its daemon: `shardfs umount` or `mount` clears it."""
    from shardfs.mount import session

    records = session.list_mounts()
    if context.output.json:
        context.output.document([record_json(record) for record in records])
        return
    rows = [
        (
            output.name(str(record.mountpoint)),
            output.name(record.source),
            record.branch or "",
            "read-only" if record.read_only else "",
            record.status,
            str(record.pid),
        )
        for record in records
    ]
    context.output.lines(output.table(rows, right=(5,)))
