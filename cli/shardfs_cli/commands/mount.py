"""`shardfs mount`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import click

from shardfs.errors import UsageError
from shardfs.mount.options import Engine
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.mounting import record_json
from shardfs_cli.numbers import Amount

# What mount(8) passes on from fstab: said already by how this program mounts, or meant for others.
_IGNORED: Final = frozenset(
    {"rw", "dev", "nodev", "suid", "nosuid", "exec", "atime", "noatime", "relatime", "defaults", "default_permissions",
     "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "sync", "async"}
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What the user chose, by options or by the words of -o."""

    source: str = "."
    remote: str | None = None
    branch: str | None = None
    read_only: bool = False
    allow_other: bool = False
    nonempty: bool = False
    deadline: float | None = None
    engine: Engine = "auto"


@define(
    "mount",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs mount ./models",
        "shardfs mount ./exp2 --branch exp2",
        "shardfs mount ./models --remote http://127.0.0.1:8750/demo",
        "shardfs mount -f ./models -o ro,allow_other",
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
@click.option(
    "--engine", type=click.Choice(get_args(Engine)), default="auto",
    help="What speaks to the kernel: shardfs itself, or libfuse.",
)  # fmt: skip
@click.option("--source", default=".", hidden=True, help="Directory of the repository, or a URL.")
@click.pass_obj
def command(
    context: Context, /, mountpoint: str, *, foreground: bool, words: tuple[str, ...], **chosen: object
) -> None:
    """Show every version as a read-only directory below MOUNTPOINT, and a writable staging directory.

    Read-only below MOUNTPOINT are latest, versions/0001-initial and so on, branches/, tags/ and commits/. What is
    written to MOUNTPOINT/staging/ becomes the next commit, by `shardfs commit` or by writing the message to
    MOUNTPOINT/.shardfs/commit.

    Returns when the mount can be used. A missing MOUNTPOINT is made, and removed when the mount ends.
    """
    choice = _with_words(Choice(**chosen), words)  # type: ignore[arg-type]
    if "://" in choice.source:
        choice = replace(choice, remote=choice.source)
    if choice.deadline is not None:
        os.environ["SHARDFS_DEADLINE"] = str(choice.deadline)  # the daemon inherits it
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
    )
    source = Path(choice.source) if choice.remote is None else absolute(choice.remote)
    if foreground:
        context.output.note(f"mounting on {output.name(mountpoint)}; Ctrl-C ends it")
        output.flush()
    record = session.mount(
        file_path(mountpoint), source, options, remote=choice.remote is not None, foreground=foreground
    )
    if context.output.json:
        context.output.document(record_json(record, record.status))
    if not foreground:
        kind = "read-only" if record.read_only else f"branch {record.branch}"
        context.output.note(f"mounted {output.name(record.source)} on {output.name(str(record.mountpoint))} ({kind})")


def _with_words(choice: Choice, given: tuple[str, ...]) -> Choice:
    """Apply the words of -o.

    Raises:
        UsageError: a word that has no meaning.
    """
    for word in (word for words in given for word in words.split(",") if word):
        key, _, value = word.partition("=")
        if key == "ro":
            choice = replace(choice, read_only=True)
        elif key in ("allow_other", "nonempty") and not value:
            choice = replace(choice, **{key: True})  # type: ignore[arg-type]
        elif key in ("branch", "remote") and value:
            choice = replace(choice, **{key: value})  # type: ignore[arg-type]
        elif key == "engine" and value in get_args(Engine):
            choice = replace(choice, engine=value)  # type: ignore[arg-type]
        elif key == "deadline" and _is_seconds(value):
            choice = replace(choice, deadline=float(value))
        elif key not in _IGNORED:
            msg = f"-o {word}: not an option; there are ro, allow_other, nonempty, branch=, remote=, deadline=, engine="
            raise UsageError(msg)
    return choice


def _is_seconds(text: str) -> bool:
    try:
        return 0 < float(text) <= 1e6
    except ValueError:
        return False
