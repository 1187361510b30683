"""Write docs/reference/cli.md from the commands themselves, and the tables of docs/reference/errors.md.

    python -m tests.cli.reference

A test fails while the pages differ from what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from shardfs import errors
from shardfs_cli.command import Command, CommandGroup
from shardfs_cli.commands import SECTIONS
from shardfs_cli.exit_status import MEANINGS, status_of_class
from shardfs_cli.main import cli

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
CLI_PAGE = REFERENCE / "cli.md"
ERRORS_PAGE = REFERENCE / "errors.md"
_MARK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
_COMMON = {"--json", "--quiet", "--verbose", "--debug", "--help"}

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
    parts = [CLI_HEAD, "## Options of every command\n\n", _options(cli, common=True), "\n", COMPLETION]
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
    tables = {"statuses": statuses, "classes": classes}
    return _MARK.sub(lambda found: found[1] + tables[found[2]] + found[3], ERRORS_PAGE.read_text())


def error_classes() -> list[type[errors.ShardfsError]]:
    """All classes of shardfs/errors.py in the order of their definition."""
    return [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.ShardfsError)
    ]


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


def _first_line(class_: type) -> str:
    return " ".join(inspect.getdoc(class_).split("\n\n")[0].split())  # type: ignore[union-attr]


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    CLI_PAGE.write_text(cli_page())
    ERRORS_PAGE.write_text(errors_page())


if __name__ == "__main__":
    main()
