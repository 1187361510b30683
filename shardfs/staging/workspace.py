"""What staging needs of a repository; the facade fits it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from shardfs.config import Settings
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId
from shardfs.formats.tree import FileEntry
from shardfs.history.content import FileReader
from shardfs.history.objects import BaseSource, Objects
from shardfs.staging.area import Area
from shardfs.store.store import Store


class Workspace(Protocol):
    """The parts of a repository that staging and the work tree are made of."""

    @property
    def root(self) -> Path | None:
        """The work tree."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether every change is refused."""
        ...

    @property
    def store(self) -> Store:
        """The store."""
        ...

    @property
    def objects(self) -> Objects:
        """Parsed objects."""
        ...

    @property
    def chunks(self) -> BaseSource:
        """Reads the bases of new chunks."""
        ...

    @property
    def settings(self) -> Settings:
        """Settings in force."""
        ...

    def open_entry(self, entry: FileEntry) -> FileReader:
        """The content of a committed file."""
        ...

    def open_once(self, entry: FileEntry) -> FileReader:
        """The content of a committed file that is read from front to back."""
        ...

    def clone_plain_file(self, entry: FileEntry, target: int) -> bool:
        """Make an empty file share the blocks of a plain file with a content; False when that cannot be."""
        ...

    def area(self, branch: str | None = None) -> Area:
        """The staging area of a branch, on its tip."""
        ...

    def current_branch(self) -> str | None:
        """Short name of the current branch."""
        ...

    def tip(self, branch: str) -> CommitId | None:
        """The newest commit of a branch."""
        ...

    def head_commit(self) -> CommitId | None:
        """The commit at HEAD."""
        ...

    def resolve(self, rev: str) -> CommitId:
        """The commit that a revision names."""
        ...

    def commit_of(self, rev: str) -> tuple[CommitId, Commit]:
        """Id and content of the commit that a revision names."""
        ...
