"""`shardfs fetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardfs.errors import ShardfsError, UsageError
from shardfs_cli import expected, output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import status_of
from shardfs_cli.link import bwlimit
from shardfs_cli.moves import move_json, move_line, warn_of
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.repository import Repository
    from shardfs.sharing import FetchPlan, FetchReport
    from shardfs.wiring import Expectation


@define(
    "fetch",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs fetch",
        "shardfs fetch --all --prune",
        "shardfs fetch --full --dry-run",
        "shardfs fetch --full v3:model.safetensors",
        "shardfs fetch --full origin v3 --tensors 'layers.0.*'",
    ),
)
@click.argument("remote", required=False)
@click.argument("places", metavar="[REV[:PATH]]...", nargs=-1)
@click.option("--full", is_flag=True, help="Copy contents too, for good: all, or those of REV[:PATH].")
@click.option("--tensors", metavar="PATTERN", help="Of REV[:PATH] only the tensors whose names match.")
@click.option("--all", "everywhere", is_flag=True, help="From every remote, in their order.")
@click.option("--prune", is_flag=True, help="Forget branches that the remote has no longer.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would come.")
@bwlimit
@click.pass_context
def command(  # noqa: PLR0913 - options
    ctx: click.Context,
    remote: str | None,
    places: tuple[str, ...],
    *,
    full: bool,
    tensors: str | None,
    everywhere: bool,
    prune: bool,
    dry_run: bool,
) -> None:
    """Get history and metadata of REMOTE (default: the branch's, else origin).

    Branches and files here stay as they are; what the remote's branches name is then REMOTE/BRANCH here. With --full
    and REV[:PATH] (of what is known before) the contents there are copied into the repository, where nothing evicts
    them; `shardfs prefetch` brings them into the cache instead.
    """
    context = ctx.ensure_object(Context)
    if not full and (places or tensors is not None or ":" in (remote or "")):
        msg = "to copy contents write --full REV[:PATH]; `shardfs prefetch` brings them into the cache"
        raise UsageError(msg)
    statuses: list[int] = []
    documents: list[dict[str, Any]] = []
    with context.repository() as repository:
        if full and remote is not None and remote not in repository.remotes():
            places, remote = (remote, *places), None
        _check(remote, places, tensors, everywhere=everywhere)
        wanted = [context.place(repository, place) for place in places]
        for name in repository.remotes() if everywhere else [remote or repository.upstream()]:
            options: dict[str, Any] = {"full": full and not wanted, "tensors": tensors, "prune": prune}
            try:
                if dry_run:
                    documents.append(_planned(context, repository, name, wanted, options))
                else:
                    documents.append(_fetched(context, repository, name, wanted, options, statuses))
            except ShardfsError as error:
                if not everywhere:
                    raise
                context.output.warn(output.name(str(error)))
                statuses.append(status_of(error))
    if context.output.json:
        context.output.document(documents if everywhere else documents[0])
    if statuses:
        ctx.exit(statuses[0])


def _check(remote: str | None, places: tuple[str, ...], tensors: str | None, *, everywhere: bool) -> None:
    if everywhere and (remote is not None or places):
        msg = "--all takes no remote and no REV[:PATH]"
        raise UsageError(msg)
    if tensors is not None and not places:
        msg = "--tensors needs a REV[:PATH]"
        raise UsageError(msg)


def _fetched(
    context: Context,
    repository: Repository,
    name: str,
    places: list[tuple[str, str]],
    options: dict[str, Any],
    statuses: list[int],
) -> dict[str, Any]:
    with bar(context, "fetch") as progress:
        report = repository.fetch(name, places, progress=progress, **options)
    warn_of(context, report)
    if report.failure is not None:
        statuses.append(status_of(report.failure))
    _tell(context, name, report)
    return {
        "remote": name,
        "moved": [move_json(move) for move in report.moved],
        "conflicts": report.conflicts,
        "lost": [str(error) for error in report.lost],
        "packs": report.packs,
        "objects": report.objects,
        "bytes": report.bytes,
        "contents": report.kept,
        "contents_bytes": report.kept_bytes,
    }


def _tell(context: Context, name: str, report: FetchReport) -> None:
    out = context.output
    if report.kept:
        chunks = output.count(report.kept, "chunk")
        out.note(f"from {name}: {chunks}, {output.size(report.kept_bytes)}, copied into this repository")
    if report.moved or report.packs:
        out.note(f"from {name}: {output.count(report.objects, 'object')}, {output.size(report.bytes)}")
        for move in report.moved:
            out.note(move_line(move))
    elif not report.kept:
        out.note(f"nothing new at {name}")


def _planned(
    context: Context, repository: Repository, name: str, places: list[tuple[str, str]], options: dict[str, Any]
) -> dict[str, Any]:
    planned = repository.plan_fetch(name, places, **options)
    speed = repository.expect("received", planned.bytes + planned.contents_bytes, name)
    show_plan(context, name, planned, speed)
    return plan_json(name, planned, speed)


def plan_json(name: str, planned: FetchPlan, speed: Expectation | None) -> dict[str, Any]:
    """A plan as JSON."""
    return {
        "remote": name,
        "moves": [move_json(move) for move in planned.moves],
        "packs": planned.packs,
        "bytes": planned.bytes,
        "contents": planned.contents,
        "contents_bytes": planned.contents_bytes,
        "picks": planned.picks,
        **expected.as_json(speed),
    }


def show_plan(context: Context, name: str, planned: FetchPlan, speed: Expectation | None) -> None:
    """Print a plan for people."""
    out = context.output
    what = f"{output.count(planned.packs, 'pack')}, {output.size(planned.bytes)}"
    if planned.contents:
        what += f", and {output.count(planned.contents, 'chunk')} of contents, {output.size(planned.contents_bytes)}"
    if planned.picks:
        what += ", and contents that a filter picks, of a size that is known after the fetch"
    out.note(f"from {name} would come: {what}{expected.in_words(speed, 'fetch')}")
    for move in planned.moves:
        out.note(move_line(move))
