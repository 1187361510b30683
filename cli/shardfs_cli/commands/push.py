"""`shardfs push`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardfs.errors import RefNotFoundError, ShardfsError
from shardfs_cli import expected, output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus, status_of
from shardfs_cli.link import bwlimit
from shardfs_cli.moves import move_json, move_line
from shardfs_cli.output import Output
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.repository import Repository
    from shardfs.sharing import PushReport
    from shardfs.wiring import Expectation


@define(
    "push",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs push",
        "shardfs push origin main --tags",
        "shardfs push origin 'exp/*' --dry-run",
        "shardfs push backup :old-branch   # deletes it there",
        "shardfs push --all",
        "shardfs push backup --mirror",
    ),
)
@click.argument("remote", required=False)
@click.argument("branches", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="To every remote in turn; what stands for REMOTE is a branch.")
@click.option("--tags", is_flag=True, help="Also all tags.")
@click.option("--mirror", is_flag=True, help="All branches and tags, by force; delete there what is gone here.")
@click.option("--force", is_flag=True, help="Move a branch of the remote even if it loses commits.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be sent and moved.")
@click.option("-u", "--set-upstream", is_flag=True, help="Pull the branches from this remote from now on.")
@bwlimit
@click.pass_context
def command(
    ctx: click.Context,
    /,
    remote: str | None,
    branches: tuple[str, ...],
    *,
    everywhere: bool,
    mirror: bool,
    **options: bool,
) -> None:
    """Send what REMOTE lacks of BRANCHES (default: the current one), then move its refs.

    A branch may be a pattern such as 'exp/*', or :NAME to delete one at the remote. REMOTE is by default what the
    setting remote.default says, else origin, or the only one there is. An interrupted push goes on where it was when
    it is run again.
    """
    context = ctx.ensure_object(Context)
    out = context.output
    if everywhere and remote is not None:
        branches = (remote, *branches)
    if mirror and (branches or options["tags"]):
        msg = "--mirror pushes all branches and tags; name none"
        raise click.UsageError(msg)
    documents: list[dict[str, Any]] = []
    status = ExitStatus.DONE
    with context.repository() as repository:
        if remote is not None and not everywhere:
            _check_remote(repository, remote)
        targets: list[str | None] = list(repository.remotes()) if everywhere else [remote]
        for name in targets:
            try:
                with bar(context, "push") as progress:
                    report = repository.push(name, branches, mirror=mirror, progress=progress, **options)
            except ShardfsError as error:
                if name is None or not everywhere:
                    raise
                status = status or status_of(error)
                told = str(error)
                out.warn(output.name(told if told.startswith(f"remote {name} ") else f"{name}: {told}"))
                failure = {"error": str(error), "kind": type(error).__name__, "exit": int(status_of(error))}
                documents.append({"remote": name, "report": None, "error": failure})
                continue
            speed = repository.expect("sent", report.bytes, report.remote) if options["dry_run"] else None
            documents.append({"remote": report.remote, "report": _document(report, speed), "error": None})
            _tell(out, report, speed)
            if report.rejected:
                status = status or ExitStatus.CONFLICT
    if out.json:
        out.document(documents if everywhere else documents[0]["report"])
    ctx.exit(status)


def _check_remote(repository: Repository, name: str) -> None:
    """Refuse what can only be a branch: git and others have them in the same place, after the remote."""
    if name in repository.remotes() or not (name in repository.branches() or set(name) & set(":*?[")):
        return
    msg = f"no remote {name!r}; a branch comes after the remote: `shardfs push {repository.default_remote()} {name}`"
    raise RefNotFoundError(msg)


def _document(report: PushReport, speed: Expectation | None) -> dict[str, Any]:
    return {
        "remote": report.remote,
        "url": report.url,
        "dry_run": report.dry_run,
        "moved": [move_json(move) for move in report.moved],
        "rejected": [
            {
                "ref": r.name,
                "old": r.old.hex() if r.old else None,
                "new": r.new.hex() if r.new else None,
                "why": r.reason,
            }
            for r in report.rejected
        ],
        "up_to_date": report.up_to_date,
        "packs": report.packs,
        "objects": report.objects,
        "chunks": report.chunks,
        "encoded": report.encoded,
        "bytes": report.bytes,
        **expected.as_json(speed),
    }


def _tell(out: Output, report: PushReport, speed: Expectation | None) -> None:
    url = output.name(report.url)
    if not report.moved and not report.rejected:
        out.note(f"{url} is up to date")
        return
    if report.dry_run:
        about = "at most " if report.encoded else ""
        counts = f"{output.count(report.packs, 'pack')} with {output.count(report.chunks, 'chunk')}"
        size = f"{about}{report.bytes} bytes ({output.size(report.bytes)})"
        out.note(f"to {url}: would send {size} in {counts}{expected.in_words(speed, 'push')}")
    else:
        out.note(f"to {url}: {output.size(report.bytes)} in {output.count(report.packs, 'pack')}")
    for move in report.moved:
        out.note(move_line(move))
    for refused in report.rejected:
        out.note(f"  rejected: {output.name(refused.reason)}")
