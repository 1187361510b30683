"""The examples of docs/reference/mount-semantics.md are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs import mountinfo

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mount-semantics.md"
pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def examples(text: str) -> Iterator[tuple[str, str]]:
    """Commands and the output that the page promises."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def matches(promised: str, found: str) -> bool:
    """Whether output is what the page says; "..." stands for anything."""
    pattern = ".*".join(re.escape(piece) for piece in promised.rstrip("\n").split("..."))
    return re.fullmatch(pattern, found.rstrip("\n"), re.DOTALL) is not None


@pytest.mark.parametrize("options", ["--engine kernel", "--engine libfuse", "--safe", "--engine libfuse --safe"])
def test_every_example_does_what_the_page_says(tmp_path: Path, options: str) -> None:
    point = tmp_path / "models"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    count = 0
    try:
        for command, promised in examples(PAGE.read_text("utf-8")):
            done = subprocess.run(
                ["bash", "-c", command.replace("shardfs mount ", f"shardfs mount {options} ")],
                cwd=tmp_path,
                env={**os.environ, "PATH": path, "LC_ALL": "C"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert matches(promised, done.stdout), f"$ {command}\n{done.stdout}\npromised:\n{promised}"
            count += 1
    finally:
        if mountinfo.top_row(point) is not None:
            subprocess.run(["fusermount3", "-uz", point], check=False)
    assert count > 25
