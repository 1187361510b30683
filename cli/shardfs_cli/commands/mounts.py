"""`shardfs mounts`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import click

from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.mounting import record_json

_AT_ONCE: Final = 16  # mounts that are asked at the same time; one that does not answer takes five seconds
_HEADS: Final = ("mount point", "source", "branch", "", "status", "engine", "pid", "up", "memory")


@define(
    "mounts",
    examples=("shardfs mounts", "shardfs mounts --json", "shardfs mounts --check ./models   # for health checks"),
)
@click.option("--check", metavar="MOUNTPOINT", help="Only say whether this mount answers: exit status 0 or 1.")
@click.pass_context
def command(ctx: click.Context, *, check: str | None) -> None:
    """List the mounts of this user.

    A dead one has lost its daemon: `shardfs umount` or `mount` clears it. One that is not answering is busy beyond
    measure or stuck: `shardfs umount --force` ends it. Ends within seconds, whatever state the mounts are in.
    """
    context = ctx.ensure_object(Context)
    if check is None:
        _list(context)
        return
    from shardfs.mount import probe, umount

    point = umount.locate(file_path(check))
    alive = probe.answers(point)
    if context.output.json:
        context.output.document({"mountpoint": str(point), "answers": alive})
    elif alive:
        context.output.note(f"{output.name(str(point))} answers")
    if not alive:
        context.output.warn(f"{output.name(str(point))}: no mount of shardfs answers there; `shardfs doctor` says more")
        ctx.exit(ExitStatus.FAILED)


def _list(context: Context) -> None:
    from shardfs.mount import probe, process, session

    records = session.list_mounts()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        states = list(pool.map(probe.state, records))
    memory = [None if state == "dead" else process.rss_bytes(r.pid) for r, state in zip(records, states, strict=True)]
    ages = [max(0.0, time.time() - record.started) for record in records]
    found = list(zip(records, states, memory, ages, strict=True))
    if context.output.json:
        documents = [
            {**record_json(record, state), "uptime_s": round(age, 3), "memory_bytes": rss}
            for record, state, rss, age in found
        ]
        context.output.document(documents)
        return
    rows = [
        (
            output.name(str(record.mountpoint)),
            output.name(record.source),
            record.branch or "",
            "read-only" if record.read_only else "",
            state,
            record.engine,
            str(record.pid),
            output.duration(age),
            "" if rss is None else output.size(rss),
        )
        for record, state, rss, age in found
    ]
    if rows:
        context.output.lines(output.table([_HEADS, *rows], right=(6, 7, 8)))
