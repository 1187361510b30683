"""`.shardfsignore`: patterns in the syntax of `.gitignore`, in any directory, for all that is below it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shardfs.errors import MalformedError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

FILE_NAME: Final = ".shardfsignore"
MAX_SIZE: Final = 1 << 20  # bytes of one file; every pattern is tried on every path


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The rules that hold in one directory: those of its own file, then those of the directories above it.

    Paths and prefixes are relative to the repository's root, with "/" between names and behind a prefix that is
    not empty; names that are no UTF-8 are in them as `os.fsdecode` makes them.
    """

    prefix: str
    spec: GitIgnoreSpec
    above: IgnoreRules | None = None

    def ignores(self, path: str, *, is_dir: bool) -> bool:
        """Whether a path below this directory is ignored, given that no directory above it is."""
        if is_dir:
            path += "/"
        rules: IgnoreRules | None = self
        while rules is not None:
            verdict = rules.spec.check_file(path[len(rules.prefix) :]).include
            if verdict is not None:
                return verdict
            rules = rules.above
        return False


def compile_patterns(lines: list[str]) -> GitIgnoreSpec:
    """Patterns in the syntax of `.gitignore`.

    Raises:
        ValueError, re.error: a line is no pattern.
    """
    from pathspec import GitIgnoreSpec  # a quarter of the time that `add` takes to start

    return GitIgnoreSpec.from_lines(lines)


def parse(data: bytes, prefix: str, above: IgnoreRules | None) -> IgnoreRules | None:
    """The rules in the bytes of an ignore file in directory `prefix`; those of `above` if it has none itself.

    Raises:
        MalformedError: a line is no pattern, or the file is past `MAX_SIZE`.
    """
    name = prefix + FILE_NAME
    if len(data) > MAX_SIZE:
        msg = f"{name} is larger than {MAX_SIZE} bytes"
        raise MalformedError(msg)
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    # Not splitlines, which takes form feeds and others, legal in names, for the ends of lines.
    lines = text.replace("\r\n", "\n").split("\n")
    try:
        spec = compile_patterns(lines)
    except (re.error, ValueError) as error:
        number, line = _first_bad(lines)
        msg = f"{name}, line {number}: {line!r} is no pattern"
        raise MalformedError(msg) from error
    return IgnoreRules(prefix, spec, above) if any(p.include is not None for p in spec.patterns) else above


def _first_bad(lines: list[str]) -> tuple[int, str]:
    for number, line in enumerate(lines, 1):
        try:
            compile_patterns([line])
        except (re.error, ValueError):
            return number, line
    return 0, ""
