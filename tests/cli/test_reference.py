"""The reference pages say what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli import reference, schema

TESTS = Path(__file__).parent


def test_cli_page_is_up_to_date() -> None:
    assert reference.CLI_PAGE.read_text() == reference.cli_page(), "run: python -m tests.cli.reference"


def test_errors_page_is_up_to_date() -> None:
    assert reference.ERRORS_PAGE.read_text() == reference.errors_page(), "run: python -m tests.cli.reference"


def test_python_page_is_up_to_date() -> None:
    assert reference.PYTHON_PAGE.read_text() == reference.python_page(), "run: python -m tests.cli.reference"


def test_examples_of_the_python_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    text = reference.PYTHON_PAGE.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], str(reference.PYTHON_PAGE), "exec"), namespace)


def test_every_command_is_used_by_a_test() -> None:
    text = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    unused = [
        name
        for name, _ in reference.all_commands()
        if not re.search(rf"[\"' ]{name}[\"' \n]", text)
        and not re.search("\\(" + ", ".join(f'"{word}"' for word in name.split()), text)
    ]
    assert unused == []


def test_every_schema_is_of_a_command() -> None:
    known = {name for name, _ in reference.all_commands()} | {
        "error",
        "fetch --dry-run",
        "prefetch --check",
        "publish --check",
        "push --all",
        "branch NAME",
        "tag NAME",
        "mount --print-fstab",
        "mounts --check",
        "pin REV",
        "stats --by file",
        "stats --by tensor",
        "warm --check",
    }
    assert schema.load().keys() <= known


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in reference.REFERENCE.glob("*.md"):
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)", text):
            assert (page.parent / target).resolve().exists(), f"{page.name}: {target}"
