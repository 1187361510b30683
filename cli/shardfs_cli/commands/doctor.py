"""`shardfs doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardfs.maintenance.doctor import Finding
    from shardfs.repository import Repository

_COLORS: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


@define(
    "doctor",
    exits=READS_AND_WRITES,
    examples=("shardfs doctor", "shardfs doctor --fix", "shardfs doctor --rebuild-index"),
)
@click.option("--fix", is_flag=True, help="Mend what can be mended without losing anything; say what was done.")
@click.option("--rebuild-index", is_flag=True, help="Make the index again from the packs.")
@click.pass_context
def command(ctx: click.Context, *, fix: bool, rebuild_index: bool) -> None:
    """Look for what is wrong with the repository and the machine under it, and say what mends it.

    With an error, which is more than a warning, the exit status is 1.
    """
    context = ctx.ensure_object(Context)
    out = context.output
    with context.repository() as repository:
        findings = list(_findings(repository, fix=fix, rebuild_index=rebuild_index))
    sound = all(finding.level != "error" for finding in findings)
    if out.json:
        listed = [{"level": f.level, "what": f.what, "fix": f.fix or None} for f in findings]
        out.document({"ok": sound, "findings": listed})
    else:
        for finding in findings:
            remedy = f" ({output.name(finding.fix)})" if finding.fix else ""
            mark = out.style(finding.level.ljust(7), _COLORS.get(finding.level, "bold"))
            out.line(f"{mark}  {output.name(finding.what)}{remedy}")
    if not sound:
        ctx.exit(ExitStatus.FAILED)


def _findings(repository: Repository, *, fix: bool, rebuild_index: bool) -> Iterator[Finding]:
    from shardfs.maintenance.doctor import Finding

    if rebuild_index:
        for problem in repository.rebuild_index():
            yield Finding("error", problem)
        yield Finding("ok", "the index was made again from the packs")
    if fix:
        yield from repository.fix()
    yield from _dead_mounts(fix=fix)
    if not (fix or rebuild_index):
        yield from repository.diagnose()


def _dead_mounts(*, fix: bool) -> Iterator[Finding]:
    from shardfs.maintenance.doctor import Finding
    from shardfs.mount import session

    for record in session.list_mounts():
        if record.status == "dead" and fix:
            session.unmount(record.mountpoint, force=True)
            yield Finding("ok", f"the dead mount {record.mountpoint} was ended")
        elif record.status == "dead":
            yield Finding("warning", f"the mount {record.mountpoint} has lost its daemon", "shardfs doctor --fix")
