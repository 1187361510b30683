"""The base of every command: common options, a checked help text, exit statuses and examples at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from shardfs_cli.context import Context
from shardfs_cli.exit_status import MEANINGS, ExitStatus

_EVERY: Final = (ExitStatus.DONE, ExitStatus.FAILED, ExitStatus.USAGE, ExitStatus.INTERRUPTED)

_OFFLINE: Final = "SHARDFS_OFFLINE"

# What commands that do such a thing can end with, beside what every command can.
OPENS: Final = (ExitStatus.NO_REPOSITORY, ExitStatus.INTEGRITY)
READS: Final = (*OPENS, ExitStatus.REMOTE)  # reads content, which may be on a remote
WRITES: Final = (*OPENS, ExitStatus.LOCKED, ExitStatus.CONFLICT)
READS_AND_WRITES: Final = (*WRITES, ExitStatus.REMOTE)


class _Documented(click.Command):
    """What commands and groups share: common options, and examples and exit statuses at the end of the help."""

    def __init__(
        self, *args: Any, exits: Sequence[ExitStatus] = (), examples: Sequence[str] = (), **keywords: Any
    ) -> None:
        super().__init__(*args, **keywords)
        self.exits = sorted({*_EVERY, *exits})
        self.examples = tuple(examples)
        self.params.extend(common_options())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit statuses."""
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        with formatter.section("Exit status"):
            formatter.write_dl([(str(int(status)), MEANINGS[status]) for status in self.exits])


class Command(_Documented):
    """A command with the common options of its own, so that they may stand after its name."""


class CommandGroup(_Documented, click.Group):
    """A command that has commands below it, such as `remote add`."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of their definition."""
        del ctx
        return list(self.commands)


def command(
    name: str, *, exits: Sequence[ExitStatus] = (), examples: Sequence[str] = (), **keywords: Any
) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function whose docstring is the help.

    Args:
        name: as the user types it.
        exits: statuses beyond those of every command.
        examples: command lines, each may end in "   # comment".
        keywords: passed on to click.
    """
    return click.command(name, cls=Command, exits=exits, examples=examples, **keywords)


def group(
    name: str, *, exits: Sequence[ExitStatus] = (), examples: Sequence[str] = (), **keywords: Any
) -> Callable[[Callable[..., Any]], CommandGroup]:
    """Make a command that has commands below it; see `command`."""
    return click.group(name, cls=CommandGroup, exits=exits, examples=examples, **keywords)


def common_options() -> list[click.Option]:
    """Fresh copies of the options that every command takes."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Print one JSON document (docs/reference/json.md).",
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set_quiet, help="Print only results."
        ),
        click.Option(
            ["-v", "--verbose"], count=True, expose_value=False, callback=_set_verbose, help="Say more; twice: all."
        ),
        click.Option(
            ["--offline"], is_flag=True, expose_value=False, callback=_set_offline, help="Ask no remote for anything."
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks of errors."
        ),
    ]


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Context).output.json = True


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Context).output.quiet = True


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Context).debug = True


def _set_offline(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Through the environment, so that a mount that this command starts is offline, too."""
    if value:
        before = os.environ.get(_OFFLINE)
        os.environ[_OFFLINE] = "1"
        ctx.call_on_close(lambda: os.environ.pop(_OFFLINE) if before is None else os.environ.update({_OFFLINE: before}))


def _set_verbose(ctx: click.Context, _: click.Parameter, value: int) -> None:
    if value:
        import logging

        context = ctx.ensure_object(Context)
        context.verbose += value
        logging.getLogger("shardfs").setLevel(logging.INFO if context.verbose == 1 else logging.DEBUG)
