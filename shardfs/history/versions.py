"""The versions of a branch: its line of first parents as numbered names, oldest first."""

from __future__ import annotations

import re
import threading
from typing import Final, NamedTuple

from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId
from shardfs.history.objects import Objects
from shardfs.history.walk import first_parents

MAX_SLUG_SIZE: Final = 40  # characters; longer subjects are cut
_NOT_SLUG = re.compile(r"[^a-z0-9.]+")


class Version(NamedTuple):
    """One version: its position from 1, its name ("0001-initial") and its commit."""

    number: int
    name: str
    commit: CommitId


def slug(subject: str) -> str:
    """A subject as part of a file name: lower-case letters, digits, dots and single dashes; may be empty."""
    return _NOT_SLUG.sub("-", subject.lower()).strip("-.")[:MAX_SLUG_SIZE].strip("-.")


def version_name(number: int, commit: Commit) -> str:
    """The name of the `number`-th version; four digits or more, so that names sort by age up to 9999 versions."""
    text = slug(commit.subject)
    return f"{number:04d}-{text}" if text else f"{number:04d}"


class VersionList:
    """The versions of one branch, kept between calls: a new commit costs one step. Safe to share between threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._versions: list[Version] = []
        self._lock = threading.Lock()

    def at(self, tip: CommitId | None) -> list[Version]:
        """The versions up to `tip`, oldest first; the caller must not change the list."""
        with self._lock:
            if self._versions and self._versions[-1].commit == tip:
                return self._versions
            known = {version.commit: version.number for version in self._versions[-1000:]}
            fresh: list[tuple[CommitId, Commit]] = []
            kept = 0
            for id_, commit in first_parents(self._objects, tip):
                if id_ in known:
                    kept = known[id_]
                    break
                fresh.append((id_, commit))
            versions = self._versions[:kept]
            for id_, commit in reversed(fresh):
                number = len(versions) + 1
                versions.append(Version(number, version_name(number, commit), id_))
            self._versions = versions
            return versions
