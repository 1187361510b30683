"""`shardfs doctor`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from shardfs.errors import RepositoryNotFoundError
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardfs.maintenance.findings import Finding
    from shardfs.repository import Repository

_COLORS: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


@define(
    "doctor",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs doctor",
        "shardfs doctor --fix",
        "shardfs doctor --remote",
        "shardfs doctor --rebuild-index",
        "shardfs doctor --bundle doctor.tar.gz",
    ),
)
@click.option(
    "--fix", is_flag=True, help="Mend what can be mended without losing anything; say what was done and what is left."
)
@click.option("--rebuild-index", is_flag=True, help="Make the index again from the packs.")
@click.option("--remote", is_flag=True, help="Also ask every remote whether it answers, for at most 10 s.")
@click.option(
    "--bundle", metavar="FILE", help="Also write versions, settings, findings and logs to FILE, without secrets."
)
@click.pass_context
def command(ctx: click.Context, *, fix: bool, rebuild_index: bool, remote: bool, bundle: str | None) -> None:
    """Look for what is wrong with the repository, the machine under it and the mounts, and say what mends it.

    Without a repository here or above, machine and mounts alone. Ends in bounded time, whatever state mounts and
    remotes are in. With an error, which is more than a warning, the exit status is 1.
    """
    context = ctx.ensure_object(Context)
    out = context.output
    with ExitStack() as stack:
        repository = None
        try:
            repository = stack.enter_context(context.repository())
        except RepositoryNotFoundError:
            if rebuild_index or remote:
                raise
        findings = list(_findings(repository, fix=fix, rebuild_index=rebuild_index, remote=remote))
        if bundle is not None:
            _write_bundle(out, bundle, findings, repository)
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


def _findings(repository: Repository | None, *, fix: bool, rebuild_index: bool, remote: bool) -> Iterator[Finding]:
    from shardfs import config
    from shardfs.maintenance import machine
    from shardfs.maintenance.findings import Finding, worst_first
    from shardfs.mount import checkup

    if rebuild_index and repository is not None:
        for problem in repository.rebuild_index():
            yield Finding("error", problem)
        yield Finding("ok", "the index was made again from the packs")
    if fix:
        yield from checkup.fix()
        yield from repository.fix() if repository is not None else machine.fix(config.load(None))
    if repository is not None:
        found = repository.diagnose(remote=remote)
    else:
        found = [*machine.diagnose(config.load(None)), Finding("note", "there is no repository here")]
    yield from worst_first([*checkup.diagnose(), *found])


def _write_bundle(out: output.Output, target: str, findings: list[Finding], repository: Repository | None) -> None:
    from shardfs.mount import bundle

    path = file_path(target)
    size = bundle.write(path, findings, None if repository is None else repository.store_path / "config.toml")
    out.note(f"wrote {output.name(str(path))}, {output.size(size)}")
