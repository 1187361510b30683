"""Every command explains itself, and starting the program is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shardfs_cli.command import Command, CommandGroup
from shardfs_cli.commands import SECTIONS, module_name
from shardfs_cli.exit_status import MEANINGS
from tests.cli import reference
from tests.cli.conftest import Shell

COMMANDS = dict(reference.all_commands())
HEAVY = ("aiohttp", "mfusepy", "numpy", "rich.progress", "sqlite_utils", "tomlkit", "torch")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_exit_statuses_after_an_example(shell: Shell, name: str) -> None:
    text = shell(*name.split(), "--help").out
    _, found, ending = text.rpartition("Exit status:\n")
    assert found
    listed = [line.split()[0] for line in ending.strip().splitlines() if line.split()[0].isdigit()]
    assert listed == [str(int(status)) for status in COMMANDS[name].exits]
    assert "Examples:\n" in text
    assert all(example in text for example in COMMANDS[name].examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_example_lines_are_valid_command_lines(name: str) -> None:
    command: Command | CommandGroup = COMMANDS[name]
    assert command.examples
    assert all(f"shardfs {name}" in example for example in command.examples)
    assert {0, 1, 2, 130} <= {int(status) for status in command.exits} <= {int(status) for status in MEANINGS}


def test_every_module_of_a_command_is_listed() -> None:
    folder = Path(sys.modules["shardfs_cli.commands"].__path__[0])
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert modules == {module_name(name) for names in SECTIONS.values() for name in names}


def test_top_help_lists_every_command(shell: Shell) -> None:
    text = shell("--help").out
    assert all(f"\n  {name} " in text for names in SECTIONS.values() for name in names)


def test_help_before_the_command(shell: Shell) -> None:
    assert shell("help", "remote", "add").out == shell("remote", "add", "--help").out


def test_help_is_the_answer_to_no_command(shell: Shell) -> None:
    for line in ([], ["config"]):
        result = shell(*line, status=2)
        assert "\nOptions:\n" in result.err
        assert result.out == ""


def test_summaries_fit_a_line_of_80(shell: Shell) -> None:
    lines = shell("--help").out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len([line for line in lines if line.startswith("  ")]) < len(SECTIONS) + 60


def test_version(shell: Shell) -> None:
    assert shell("--version").out.startswith("shardfs 0.")


def test_start_imports_nothing_heavy() -> None:
    program = f"import sys, shardfs_cli.main; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom shardfs_cli.main import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        f"print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_unknown_command_is_answered_with_the_nearest(shell: Shell) -> None:
    assert "did you mean 'commit'?" in shell("comit", status=2).err


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(shell: Shell, kind: str) -> None:
    assert "_SHARDFS_COMPLETE" in shell("completion", kind).out


def test_completion_completes_commands(shell: Shell) -> None:
    done = shell.process(_SHARDFS_COMPLETE="bash_complete", COMP_WORDS="shardfs sta", COMP_CWORD="1")
    assert {line.split(",")[1] for line in done.out.split()} == {"stats", "status"}
