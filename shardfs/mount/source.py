"""What a mount needs of a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, ManifestId, TreeId
from shardfs.formats.manifest import Manifest
from shardfs.formats.ref import Head
from shardfs.formats.tree import FileEntry, Tree
from shardfs.staging.area import Area


class Objects(Protocol):
    """Commits, trees and manifests by id."""

    def commit(self, id_: CommitId, /) -> Commit:
        """A commit."""
        ...

    def tree(self, id_: TreeId, /) -> Tree:
        """A directory."""
        ...

    def manifest(self, id_: ManifestId, /) -> Manifest:
        """The chunks of a file."""
        ...


class Content(Protocol):
    """Random access to the content of a committed file."""

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        ...

    def pieces_at(self, offset: int, size: int, /) -> Sequence[bytes | memoryview]:
        """As `read_at`, in pieces."""
        ...

    def is_ready(self, offset: int, size: int, /) -> bool:
        """Whether a read of the range would find it in memory."""
        ...

    def close(self) -> None:
        """Nothing more will be read."""
        ...


class Version(Protocol):
    """One step of a branch's first-parent history."""

    @property
    def name(self) -> str:
        """The name below `versions/`: number and start of the message."""
        ...

    @property
    def commit(self) -> CommitId:
        """Its commit."""
        ...


class FileFacts(Protocol):
    """How a file is stored."""

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        ...

    @property
    def stored(self) -> int:
        """Bytes of their encoded forms, each distinct chunk once."""
        ...

    @property
    def cached(self) -> int:
        """Bytes of plaintext that can be read without a network."""
        ...

    @property
    def codecs(self) -> Sequence[str]:
        """Names of the codecs, the one of most bytes of the file first."""
        ...

    @property
    def depth(self) -> int:
        """Chunks in a row that must be decoded before one of the file, at most."""
        ...


class Source(Protocol):
    """The members of `shardfs.repository.Repository` that a mount uses."""

    store_path: Path
    read_only: bool
    url: str | None

    @property
    def objects(self) -> Objects:
        """Commits, trees and manifests."""
        ...

    def head(self) -> Head:
        """What HEAD names."""
        ...

    def branches(self) -> dict[str, CommitId]:
        """Branches by short name."""
        ...

    def tip(self, branch: str, /) -> CommitId | None:
        """The newest commit of a branch, None when it has none; RefCorruptedError when its file was lost."""
        ...

    def tags(self) -> dict[str, CommitId]:
        """Tags by short name."""
        ...

    def remote_branches(self) -> dict[str, CommitId]:
        """Branches of remotes as of the last fetch."""
        ...

    def versions(self, branch: str | None = None, /) -> Sequence[Version]:
        """First-parent history of a branch, oldest first."""
        ...

    def commits_with_prefix(self, digits: str, /) -> list[CommitId]:
        """Commits whose hexadecimal id starts with `digits`, at most 20."""
        ...

    def open_entry(self, entry: FileEntry, path: bytes = b"", /) -> Content:
        """Random access to a file of a commit; with its path the order of the reads is kept when it is closed."""
        ...

    def plain_file(self, entry: FileEntry, /) -> int | None:
        """A new descriptor of a checked plain file with the content of a file of a commit; None when there is none."""
        ...

    def plain_path(self, entry: FileEntry, /) -> Path | None:
        """Where that plain file is."""
        ...

    def note_read(self, entry: FileEntry, size: int, /) -> None:
        """Bytes of a file were served."""
        ...

    def file_facts(self, entry: FileEntry, /) -> FileFacts:
        """How a file is stored, from the index alone."""
        ...

    def area(self, branch: str | None = None, /) -> Area:
        """The staging area of a branch, brought up to the branch's tip."""
        ...

    def commit(self, message: str, *, branch: str | None = None) -> CommitId:
        """Turn a staging area into a commit."""
        ...

    def refresh(self) -> None:
        """Bring a view of a remote up to date."""
        ...

    def stats_snapshot(self) -> Mapping[str, Any]:
        """Cheap counters."""
        ...
