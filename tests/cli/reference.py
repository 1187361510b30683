"""Write docs/reference/cli.md from the commands themselves, and the tables and lists of errors.md and python.md.

    python -m tests.cli.reference

A test fails while the pages differ from what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import shardfs
from shardfs import errors
from shardfs.caching import Caching
from shardfs.repository import Repository
from shardfs.sharing import Sharing
from shardfs.wiring import Wiring
from shardfs_cli.command import Command, CommandGroup
from shardfs_cli.commands import SECTIONS
from shardfs_cli.exit_status import MEANINGS, status_of_class
from shardfs_cli.main import cli

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
CLI_PAGE = REFERENCE / "cli.md"
ERRORS_PAGE = REFERENCE / "errors.md"
PYTHON_PAGE = REFERENCE / "python.md"
_MARK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
_COMMON = {"--json", "--quiet", "--verbose", "--offline", "--debug", "--help"}

BEFORE = "`-C` and `--version` stand before the name of the command, the others there or behind it.\n\n"
COMPLETION = """Completion of commands and options in the shell, from the line that starts it:

```sh
eval "$(shardfs completion bash)"                                       # in ~/.bashrc
eval "$(shardfs completion zsh)"                                        # in ~/.zshrc
shardfs completion fish > ~/.config/fish/completions/shardfs.fish
```

"""

CLI_HEAD = """# Command line

Written by `python -m tests.cli.reference` from the commands themselves; do not edit.

Every command works from any directory of the work tree and below a mount of the repository. Paths are relative to the
current directory. A revision is `HEAD`, a branch, a tag, `REMOTE/BRANCH`, or a full or abbreviated id (four digits or
more), each with any number of `~N` (N-th first parent) and `^` (first parent) behind it.

"""


def all_commands() -> Iterator[tuple[str, Command | CommandGroup]]:
    """Every command with its full name, groups before what is below them."""
    top = click.Context(cli, info_name="shardfs")
    for names in SECTIONS.values():
        for name in names:
            command = cli.get_command(top, name)
            assert isinstance(command, Command | CommandGroup), name
            yield name, command
            if isinstance(command, CommandGroup):
                for below, child in command.commands.items():
                    assert isinstance(child, Command), below
                    yield f"{name} {below}", child


def cli_page() -> str:
    """The text of cli.md."""
    by_name = dict(all_commands())
    parts = [CLI_HEAD, "## Options of every command\n\n", BEFORE, _options(cli, common=True), "\n", COMPLETION]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n\n")
        for full, command in by_name.items():
            if full.split()[0] in names:
                parts.append(_entry(full, command))
    return "".join(parts).rstrip() + "\n"


def errors_page() -> str:
    """The text of errors.md with its tables written again."""
    statuses = "| status | meaning |\n|---|---|\n" + "".join(f"| {int(s)} | {m} |\n" for s, m in MEANINGS.items())
    classes = "| error | exit status | when |\n|---|---|---|\n" + "".join(
        f"| `{class_.__name__}` | {int(status_of_class(class_))} | {_first_line(class_)} |\n"
        for class_ in error_classes()
    )
    return _filled(ERRORS_PAGE, {"statuses": statuses, "classes": classes})


def python_page() -> str:
    """The text of python.md with its lists written again."""
    functions = {name: getattr(shardfs, name) for name in shardfs.__all__ if not name.startswith("_")}
    members = {**vars(Wiring), **vars(Caching), **vars(Sharing), **vars(Repository)}
    methods = {name: value for name, value in members.items() if not name.startswith("_")}
    return _filled(PYTHON_PAGE, {"functions": _signatures(functions), "methods": _signatures(methods)})


def error_classes() -> list[type[errors.ShardfsError]]:
    """All classes of shardfs/errors.py in the order of their definition."""
    return [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.ShardfsError)
    ]


def _filled(page: Path, parts: dict[str, str]) -> str:
    return _MARK.sub(lambda found: found[1] + parts[found[2]] + found[3], page.read_text())


def _signatures(functions: dict[str, Callable[..., object]]) -> str:
    return "".join(
        f"- `{name}({', '.join(_parameters(function))})`: {_first_line(function)}\n"
        for name, function in functions.items()
    )


def _parameters(function: Callable[..., object]) -> Iterator[str]:
    """Parameters but `self`, with defaults, and a "*" before the keyword-only ones."""
    star = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name != "self":
            if parameter.kind == inspect.Parameter.KEYWORD_ONLY and not star:
                star = True
                yield "*"
            yield str(parameter.replace(annotation=inspect.Parameter.empty))


def _entry(full: str, command: Command | CommandGroup) -> str:
    context = click.Context(command, info_name=f"shardfs {full}")
    usage = " ".join(command.collect_usage_pieces(context))
    text = inspect.cleandoc(command.help or "")
    examples = "".join(f"{example}\n" for example in command.examples)
    statuses = "; ".join(f"{int(status)} {MEANINGS[status]}" for status in command.exits)
    options = _options(command, common=False)
    return (
        f"### shardfs {full}\n\n```\nshardfs {full} {usage}\n```\n\n{text}\n\n"
        + (f"{options}\n" if options else "")
        + f"```sh\n{examples}```\n\nExit status: {statuses}.\n\n"
    )


def _options(command: click.Command, *, common: bool) -> str:
    context = click.Context(command)
    rows = [
        (name, text)
        for parameter in command.get_params(context)
        if "--help" not in parameter.opts
        and (common or not _COMMON & set(parameter.opts))
        and (record := parameter.get_help_record(context))
        for name, text in [record]
        if isinstance(parameter, click.Option)
    ]
    rows += [("-h, --help", "Explain a command and exit.")] if common else []
    return "".join(f"- `{name}`: {' '.join(text.split())}\n" for name, text in rows)


def _first_line(described: object) -> str:
    return " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    CLI_PAGE.write_text(cli_page())
    ERRORS_PAGE.write_text(errors_page())
    PYTHON_PAGE.write_text(python_page())


if __name__ == "__main__":
    main()
