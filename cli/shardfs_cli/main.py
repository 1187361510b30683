"""The entry point: finds commands, opens nothing, and turns every error into one line and an exit status."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

import click

import shardfs
from shardfs.allocator import keep_freed_memory
from shardfs_cli import output
from shardfs_cli.command import common_options
from shardfs_cli.commands import SECTIONS, module_name
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus, status_of
from shardfs_cli.output import Output

# What click raises for a group without a command; older versions print the help themselves.
_NO_ARGUMENTS: Final[tuple[type[click.UsageError], ...]] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)
COMPLETE_VARIABLE: Final = "_SHARDFS_COMPLETE"
# Objects made between two searches for garbage cycles. At Python's 700 those searches take a seventh of the time of a
# command that handles 100 000 files, and find nothing.
_GARBAGE_AFTER: Final = 100_000


class Shardfs(click.Group):
    """The top command. Command modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, by section."""
        del ctx
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, None for an unknown one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(f"shardfs_cli.commands.{module_name(cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but an unknown name is answered with the nearest known one."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and len(args) == 4 and args[2] == "-o":
            # How mount(8) calls a file system of type fuse.shardfs: SOURCE MOUNTPOINT -o WORDS.
            args = ["mount", args[1], "-o", args[3], "--source", name]
            name = "mount"
        if name == "help" and args[1:]:
            args = [*args[1:], "--help"]
            name = args[0]
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "; `shardfs --help` lists all commands"
            msg = f"no command {name!r}{hint}"
            raise click.UsageError(msg)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        del ctx
        widest = max(len(name) for names in SECTIONS.values() for name in names)
        for title, summaries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), summary) for name, summary in summaries.items()])

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run one command line and exit with its status."""
        del prog_name
        argv = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        sys.exit(self._run(argv, extra))

    def _complete(self, extra: dict[str, Any]) -> None:
        """Answer a shell that asks for completions, and exit."""
        instruction = os.environ.get(COMPLETE_VARIABLE)
        if instruction:
            from click.shell_completion import shell_complete

            sys.exit(shell_complete(self, extra, "shardfs", COMPLETE_VARIABLE, instruction))

    def _run(self, argv: list[str], extra: dict[str, Any]) -> int:
        context = Context()
        _log_to_stderr()
        try:
            self._complete(extra)
            with self.make_context("shardfs", argv, obj=context, **extra) as ctx:
                self.invoke(ctx)
            output.flush()
            return ExitStatus.DONE
        except BrokenPipeError:
            return _reader_has_left()
        except click.exceptions.Exit as request:
            return _flushed(request.exit_code)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost edge of the program
            context.output.json |= "--json" in argv
            return _report(context, error)


@click.group("shardfs", cls=Shardfs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-C", "directory", multiple=True, metavar="DIR", help="Run as if started in DIR.")
@click.version_option(shardfs.__version__, prog_name="shardfs", message="%(prog)s %(version)s")
def cli(directory: tuple[str, ...]) -> None:
    """Version control for AI models and datasets that can be mounted."""
    for folder in directory:
        try:
            os.chdir(folder)
        except OSError as error:
            msg = f"cannot run in {output.name(folder)}: {error.strerror}"
            raise click.UsageError(msg) from error
        except ValueError as error:
            msg = f"cannot run in {output.name(folder)}: {error}"
            raise click.UsageError(msg) from error


cli.params.extend(common_options())


def main() -> NoReturn:
    """The program `shardfs`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for the life of the process
    # A terminated command ends like an interrupted one: through its `finally` clauses.
    signal.signal(signal.SIGTERM, _terminate)
    keep_freed_memory()
    gc.set_threshold(_GARBAGE_AFTER)
    cli.main()


def _terminate(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


class _StderrHandler(logging.Handler):
    """Writes records as lines of this program to what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        Output().warn(output.name(self.format(record)))


def _log_to_stderr() -> None:
    logger = logging.getLogger("shardfs")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
    logger.setLevel(logging.WARNING)


def _flushed(status: int) -> int:
    try:
        output.flush()
    except BrokenPipeError:
        return _reader_has_left() or status
    return status


def _reader_has_left() -> int:
    """The program that reads our output closed it, as `head` does: it has what it wanted."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return ExitStatus.DONE


def _report(context: Context, error: BaseException) -> int:
    if context.debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    status = status_of(error)
    if isinstance(error, _NO_ARGUMENTS):
        context.output.help(error.format_message())
        return status
    message = output.name(_message(error))
    if context.output.json:
        kind = type(error).__name__
        context.output.document({"error": message, "kind": kind, "exit": int(status)})
    if not (isinstance(error, click.Abort | KeyboardInterrupt) and not context.debug):
        context.output.warn(message)
    return status


def _message(error: BaseException) -> str:
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, click.ClickException):
        hint = f" (see `{error.ctx.command_path} --help`)" if isinstance(error, click.UsageError) and error.ctx else ""
        return error.format_message().rstrip(".") + hint
    if isinstance(error, shardfs.errors.ShardfsError):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        subject = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes | os.PathLike) else ""
        return f"{subject}{error.strerror}"
    return f"internal error: {type(error).__name__}: {error} (--debug shows where)"
