"""`shardfs mount`."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

import shardfs
from shardfs.errors import UsageError
from shardfs.mount import operating
from shardfs.mount.operating import LogFormat, LogLevel, Operating
from shardfs.mount.options import Engine
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.link import BWLIMIT_HELP, limit_speed, size
from shardfs_cli.mount_choice import Choice, with_words, words_of
from shardfs_cli.mounting import record_json
from shardfs_cli.numbers import Amount


@define(
    "mount",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs mount ./models",
        "shardfs mount ./exp2 --branch exp2",
        "shardfs mount ./models --remote http://127.0.0.1:8750/demo",
        "shardfs mount -f ./models -o ro,allow_other",
        "shardfs mount /mnt/models --metrics 9750 --log-format json",
        "shardfs mount /mnt/models --read-only --print-systemd",
    ),
)
@click.argument("mountpoint")
@click.option("-f", "--foreground", is_flag=True, help="Stay in front until Ctrl-C, SIGTERM or `shardfs umount`.")
@click.option("--branch", metavar="NAME", help="Show this branch instead of the current one.")
@click.option("--remote", metavar="URL", help="Show a remote without a clone, read-only.")
@click.option("--read-only", is_flag=True, help="Without staging.")
@click.option("--allow-other", is_flag=True, help="Other users may look, too.")
@click.option("--nonempty", is_flag=True, help="The mount point may have content; the mount hides it.")
@click.option(
    "-o", "words", multiple=True, metavar="WORDS", help="The same as in fstab: ro,allow_other,branch=NAME ..."
)
@click.option(
    "--deadline", type=Amount(min=0, min_open=True, max=1e6), metavar="SECONDS",
    help="How long one read waits for a remote before it fails.",
)  # fmt: skip
@click.option("--bwlimit", metavar="SIZE", callback=size, help=BWLIMIT_HELP)
@click.option(
    "--engine", type=click.Choice(get_args(Engine)), default="auto",
    help="What speaks to the kernel: shardfs itself, or libfuse.",
)  # fmt: skip
@click.option("--safe", is_flag=True, help="Without any ability of the kernel that a mount can do without.")
@click.option(
    "--no-passthrough", "passthrough", flag_value=False, default=True,
    help="The kernel reads no plain files itself, where it could.",
)  # fmt: skip
@click.option("--log-file", metavar="FILE", help="Write the log to FILE (default: see `shardfs mounts --json`).")
@click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="What is worth a line (default: info).")
@click.option(
    "--log-format", type=click.Choice(get_args(LogFormat)), default="text",
    help="Lines for people, or one JSON object a line; with -f and without --log-file on standard error.",
)  # fmt: skip
@click.option(
    "--metrics", metavar="[HOST:]PORT", help="Serve /metrics for Prometheus and /healthz, on 127.0.0.1 without HOST."
)
@click.option("--print-fstab", is_flag=True, help="Only print the line of /etc/fstab for these options.")
@click.option("--print-systemd", is_flag=True, help="Only print a unit of systemd for these options.")
@click.option(
    "--source", default=".", metavar="PLACE", help="Directory of the repository, or a URL as --remote (default: here)."
)
@click.pass_obj
def command(
    context: Context,
    /,
    mountpoint: str,
    *,
    foreground: bool,
    words: tuple[str, ...],
    print_fstab: bool,
    print_systemd: bool,
    **chosen: object,
) -> None:
    """Show every version as a read-only directory below MOUNTPOINT, and a writable staging directory.

    Read-only below MOUNTPOINT are latest, versions/0001-initial and so on, branches/, tags/ and commits/. What is
    written to MOUNTPOINT/staging/ becomes the next commit, by `shardfs commit` or by writing the message to
    MOUNTPOINT/.shardfs/commit.

    Returns when the mount can be used. A missing MOUNTPOINT is made, and removed when the mount ends.
    """
    choice = with_words(Choice(**chosen), words)  # type: ignore[arg-type]
    if "://" in choice.source:
        choice = replace(choice, remote=choice.source)
    if choice.metrics is not None:
        operating.address(choice.metrics)  # a mistake is found before anything happens
    if print_fstab and print_systemd:
        msg = "--print-fstab and --print-systemd cannot be combined"
        raise UsageError(msg)
    if print_fstab or print_systemd:
        _print(context, _printed(mountpoint, choice, "fstab" if print_fstab else "systemd"))
        return
    if choice.deadline is not None:
        os.environ["SHARDFS_DEADLINE"] = str(choice.deadline)  # the daemon inherits it
    limit_speed(choice.bwlimit)
    _mount(context, mountpoint, choice, foreground=foreground)


def _mount(context: Context, mountpoint: str, choice: Choice, *, foreground: bool) -> None:
    from shardfs.mount import session
    from shardfs_cli.commands.remote import absolute

    options = session.MountOptions(
        branch=choice.branch,
        read_only=choice.read_only,
        allow_other=choice.allow_other,
        nonempty=choice.nonempty,
        engine=choice.engine,
        safe=choice.safe,
        passthrough=choice.passthrough,
    )
    source = Path(choice.source) if choice.remote is None else absolute(choice.remote)
    if foreground:
        context.output.note(f"mounting on {output.name(mountpoint)}; Ctrl-C ends it")
        output.flush()
    record = session.mount(
        file_path(mountpoint),
        source,
        options,
        remote=choice.remote is not None,
        foreground=foreground,
        operating=_operating(choice, verbose=context.verbose > 0 and not foreground),
    )
    if context.output.json:
        context.output.document(record_json(record, record.status))
    if not foreground:
        branch = "no branch" if record.branch is None else f"branch {record.branch}"
        kind = "read-only" if record.read_only else branch
        context.output.note(f"mounted {output.name(record.source)} on {output.name(str(record.mountpoint))} ({kind})")


def _operating(choice: Choice, *, verbose: bool) -> Operating:
    return Operating(
        log=None if choice.log_file is None else file_path(choice.log_file).absolute(),
        log_level=choice.log_level or ("debug" if verbose else None),
        log_format=choice.log_format,
        metrics=choice.metrics,
    )


def _print(context: Context, text: str) -> None:
    if context.output.json:
        context.output.document({"text": text})
    else:
        context.output.line(text.rstrip("\n"))


def _printed(mountpoint: str, choice: Choice, form: str) -> str:
    """The line of fstab or the unit of systemd that mounts the same."""
    from shardfs.mount import units
    from shardfs.mount.job import public_url
    from shardfs_cli.commands.remote import absolute

    point = Path(os.path.abspath(file_path(mountpoint)))  # noqa: PTH100 - looks at nothing
    remote = choice.remote is not None
    # Everybody may read these files: what opens the remote is in the user's credentials file.
    source = public_url(absolute(choice.remote)) if choice.remote is not None else _directory(choice.source)
    if choice.log_file is not None:
        choice = replace(choice, log_file=str(file_path(choice.log_file).absolute()))
    words = words_of(choice)
    if form == "fstab":
        return units.fstab_line(source, point, words, remote=remote)
    program = shutil.which("shardfs") or sys.argv[0]
    place = ["--source", source] if not remote else ["--remote", source]
    given = ["-o", ",".join(words)] if words else []
    command = [str(Path(program).absolute()), "mount", "-f", *place, *given, "--", str(point)]
    user = getpass.getuser() if os.geteuid() else None
    return units.service(command, point, source, user=user, remote=remote)


def _directory(source: str) -> str:
    """A source as an absolute path. One that was named may be yet to come; the default has to be a repository."""
    if source == ".":
        shardfs.open(source).close()
    return str(Path(source).resolve())
