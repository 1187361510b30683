"""What of a remote shall be here: the words of `clone --filter`, which the settings of the clone keep.

    none          history and metadata alone; contents come when they are read
    all           all contents of what is followed
    path=GLOB     contents of the newest versions, at or below paths that match
    size<SIZE     contents of the newest versions, of files smaller than that
    branch=GLOB   follow these branches only, and the tags in their history

A file is taken if one of the paths matches and it is small enough; a filter that is not given restricts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from shardfs.config import parse_size
from shardfs.errors import UsageError
from shardfs.formats.ref import BRANCHES

FORMS: Final = "none, all, path=GLOB, size<SIZE or branch=GLOB"


@dataclass(frozen=True, slots=True)
class Filter:
    """What shall be here.

    Attributes:
        everything: all contents of what is followed.
        paths: patterns of paths whose contents are wanted; slashes are matched like any character.
        below: files of so many bytes or more are left out; None for no limit.
        branches: patterns of short names; none: all.
    """

    everything: bool = False
    paths: tuple[str, ...] = ()
    below: int | None = None
    branches: tuple[str, ...] = ()

    @property
    def whole_packs(self) -> bool:
        """Whether all that the remote has is wanted."""
        return self.everything and not self.branches

    @property
    def picks(self) -> bool:
        """Whether some contents are wanted."""
        return self.everything or bool(self.paths) or self.below is not None

    def follows(self, name: str) -> bool:
        """Whether a branch, by full name, is followed."""
        short = name.removeprefix(BRANCHES)
        return not self.branches or any(fnmatchcase(short, pattern) for pattern in self.branches)

    def takes(self, path: str, size: int) -> bool:
        """Whether the content of a file of a newest version is wanted."""
        if self.below is not None and size >= self.below:
            return False
        return not self.paths or any(_is_at_or_below(path, pattern) for pattern in self.paths)


def parse(words: Iterable[str]) -> Filter:
    """The filter that some words describe together; `none` for no words.

    Raises:
        UsageError: a word that is none, or words that exclude each other.
    """
    words = list(dict.fromkeys(words))
    paths, branches, below = [], [], None
    for word in words:
        if word.startswith("path=") and (path := word.removeprefix("path=").strip("/")):
            paths.append(path)
        elif word.startswith("branch=") and word != "branch=":
            branches.append(word.removeprefix("branch="))
        elif word.startswith("size<"):
            limit = parse_size(word.removeprefix("size<"))
            below = limit if below is None else min(below, limit)
        elif word not in ("none", "all"):
            msg = f"not a filter: {word!r}; write {FORMS}"
            raise UsageError(msg)
    if ("all" in words or "none" in words) and (paths or below is not None or {"all", "none"} <= set(words)):
        msg = f"{' and '.join(words)} exclude each other"
        raise UsageError(msg)
    return Filter("all" in words, tuple(paths), below, tuple(branches))


def _is_at_or_below(path: str, pattern: str) -> bool:
    names = path.split("/")
    return any(fnmatchcase("/".join(names[: depth + 1]), pattern) for depth in range(len(names)))
