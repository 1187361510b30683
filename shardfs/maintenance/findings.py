"""What a look at something found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LEVELS: Final = ("ok", "note", "warning", "error")
FIX: Final = "shardfs doctor --fix"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "ok", "note", "warning" (works, but) or "error" (something does not work or is lost).
        what: one line.
        fix: what to do, a command where there is one; empty when nothing is to be done.
    """

    level: str
    what: str
    fix: str = ""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """In falling order of level, else as they came."""
    return sorted(findings, key=lambda f: -LEVELS.index(f.level))
