"""Revisions: what people write to name a commit.

HEAD, a branch, a tag, `remote/branch`, a full ref name, a full or abbreviated id (4 digits or more), each
followed by any number of `~n` (n-th first parent) and `^` (first parent).
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from shardfs.errors import RevisionNotFoundError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.history.objects import Objects

_REVISION = re.compile(r"(?P<name>[^~^]+)(?P<steps>(?:~\d{0,9}|\^)*)")
_STEP = re.compile(r"~(\d*)|\^")
_HEX = re.compile(r"[0-9a-f]{4,64}")
MIN_ABBREVIATION: Final = 12  # digits; collisions of 48 bits need millions of commits


class Names(Protocol):
    """The names of a store, as far as revisions need them."""

    def head_commit(self) -> CommitId | None:
        """The commit at HEAD, None on a branch without commits."""
        ...

    def ref(self, name: str) -> CommitId | None:
        """The commit that a full ref name names."""
        ...

    def commits_with_prefix(self, digits: str) -> list[CommitId]:
        """Commits whose hexadecimal id starts with `digits`, at most 20."""
        ...


def short(id_: bytes) -> str:
    """An abbreviated id for people."""
    return id_.hex()[:MIN_ABBREVIATION]


def resolve(text: str, names: Names, objects: Objects) -> CommitId:
    """The commit that a revision names.

    Raises:
        RevisionNotFoundError: it names none, or more than one.
    """
    found = _REVISION.fullmatch(text)
    if found is None:
        msg = f"not a revision: {text!r}"
        raise RevisionNotFoundError(msg)
    commit = _named(found["name"], names)
    for step in _STEP.finditer(found["steps"]):
        count = int(step[1]) if step[1] else 1
        for _ in range(count):
            parents = objects.commit(commit).parents
            if not parents:
                msg = f"{text}: {short(commit)} has no parent"
                raise RevisionNotFoundError(msg)
            commit = parents[0]
    return commit


def _named(name: str, names: Names) -> CommitId:
    if name in ("HEAD", "@"):
        commit = names.head_commit()
        if commit is None:
            msg = "HEAD names no commit: this branch has no commits yet"
            raise RevisionNotFoundError(msg)
        return commit
    prefixes = (ref_format.TAGS, ref_format.BRANCHES, ref_format.REMOTES)
    candidates = [name] if name.startswith("refs/") else [prefix + name for prefix in prefixes]
    for candidate in candidates:
        if ref_format.is_ref_name(candidate) and (commit := names.ref(candidate)) is not None:
            return commit
    return _by_digits(name, names)


def _by_digits(text: str, names: Names) -> CommitId:
    matches = names.commits_with_prefix(text) if _HEX.fullmatch(text) else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(short(m) for m in matches[:5])
        msg = f"{text} is ambiguous: {listed}; give more digits"
        raise RevisionNotFoundError(msg)
    msg = f"unknown revision {text!r}; `shardfs log` and `shardfs branch` list what there is"
    raise RevisionNotFoundError(msg)
