"""The page about faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/faults.md"


def test_every_test_that_the_page_names_is_there() -> None:
    missing: list[str] = []
    file = ""
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`", PAGE.read_text())
    for path, name in named:
        file = path or file
        source = ROOT / file
        if not source.is_file() or (name and f"\ndef {name}(" not in source.read_text()):
            missing.append(f"{file}::{name}")
    assert missing == []
    assert len(named) > 60
