"""`shardfs verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.maintenance.mending import MendReport
    from shardfs.maintenance.problems import Problem


@define("verify", exits=READS, examples=("shardfs verify", "shardfs verify --repair", "shardfs verify --remote --json"))
@click.option("--remote", is_flag=True, help="Also fetch and check what is only at a remote.")
@click.option("--repair", is_flag=True, help="First store again what is damaged, from other packs, cache and remotes.")
@click.pass_context
def command(ctx: click.Context, *, remote: bool, repair: bool) -> None:
    """Read and check every pack, object, chunk and ref. With a problem the exit status is 13.

    Nothing is changed without --repair, and nothing is deleted with it: a pack that was replaced goes to the folder
    damaged/ of the repository.
    """
    context = ctx.ensure_object(Context)
    out = context.output
    with context.repository() as repository, bar(context, "verify") as progress:
        repaired = repository.repair(progress=progress) if repair else None
        report = repository.verify(remote=remote, progress=progress)
    if out.json:
        out.document(
            {
                "ok": report.ok,
                "problems": [
                    {
                        "kind": problem.kind,
                        "object": problem.object,
                        "problem": problem.problem,
                        "file": problem.file,
                        "commit": problem.commit,
                        "pack": problem.pack,
                    }
                    for problem in report.problems
                ],
                "packs": report.packs,
                "bytes": report.read_bytes,
                "refs": report.refs,
                "commits": report.commits,
                "trees": report.trees,
                "files": report.files,
                "chunks": report.chunks,
                "remote_chunks": report.remote_chunks,
                "repaired": None if repaired is None else _repaired(repaired),
            }
        )
    else:
        if repaired is not None and repaired.payloads:
            packs = output.count(len(repaired.packs) + len(repaired.kept), "damaged pack")
            out.note(f"stored {output.count(repaired.payloads, 'payload')} of {packs} again")
        if repaired is not None and repaired.folder is not None:
            out.note(f"the replaced packs are in {output.name(str(repaired.folder))} and may be deleted")
        out.lines(_line(problem) for problem in report.problems)
        parts = [(report.packs, "pack"), (report.commits, "commit"), (report.files, "file"), (report.chunks, "chunk")]
        checked = ", ".join(output.count(number, noun) for number, noun in parts)
        elsewhere = f", {report.remote_chunks} of them at a remote" if report.remote_chunks else ""
        result = "no problems" if report.ok else output.count(len(report.problems), "problem")
        out.note(f"{result}: checked {checked}{elsewhere}, {output.size(report.read_bytes)}")
    if not report.ok:
        ctx.exit(ExitStatus.INTEGRITY)


def _repaired(report: MendReport) -> dict[str, object]:
    return {
        "payloads": report.payloads,
        "healed": report.healed,
        "lost": report.lost,
        "packs": report.packs,
        "kept": report.kept,
        "folder": None if report.folder is None else str(report.folder),
    }


def _line(problem: Problem) -> str:
    where = [f"file {output.name(problem.file)}"] if problem.file else []  # the root of a tree has no name
    where += [f"commit {problem.commit[:12]}"] if problem.commit is not None else []
    place = f" ({', '.join(where)})" if where else ""
    name = problem.object if problem.kind == "ref" else problem.object[:12]
    return f"{problem.kind} {output.name(name)}{place}: {output.name(problem.problem)}"
