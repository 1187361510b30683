"""The part of the facade that is about the cache: plain files, and what a user wants to be in it or not."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind
from shardfs.formats.tree import FileEntry
from shardfs.history.content import manifest_of
from shardfs.progress import Progress, no_progress
from shardfs.wiring import Wiring, remembers_speed

if TYPE_CHECKING:
    # Part of the facade: who shows the results names their types.
    from shardfs.transfer.absence import Absent as Absent
    from shardfs.transfer.contents import Picked
    from shardfs.transfer.keeping import PinState as PinState
    from shardfs.transfer.warming import Files, Warmer
    from shardfs.transfer.warming import Presence as Presence
    from shardfs.transfer.warming import WarmReport as WarmReport


class Prefetched(NamedTuple):
    """What was prefetched, or would be.

    Attributes:
        files: distinct contents that were asked for; with a pattern, files with tensors of that name.
        bytes: size of their chunks; with a pattern, of those that hold these tensors.
        tensors: how many matched; None without a pattern.
        chunks: how many came, those included that others are differences to.
        fetched_bytes: their stored size.
    """

    files: int
    bytes: int
    tensors: int | None
    chunks: int
    fetched_bytes: int


class Caching(Wiring):
    """What `Repository` does with the cache; it resolves revisions."""

    @abstractmethod
    def commit_of(self, rev: str) -> tuple[CommitId, Commit]:
        """Id and content of the commit that a revision names."""

    def plain_file(self, entry: FileEntry) -> int | None:
        """A new descriptor, which the caller closes, of a checked plain file with the content of a file of a commit.

        None when there is none; one that this process has not checked yet is then checked in the background.
        """
        return self._tier.plain_file(entry)

    def plain_path(self, entry: FileEntry) -> Path | None:
        """Where that plain file is; it may be evicted at any time, unless it is pinned."""
        return self._tier.path(entry)

    def note_read(self, entry: FileEntry, size: int) -> None:
        """Count bytes of a file that were served; after twice its size a plain file is made in the background."""
        self._tier.note_read(entry, size)

    def clone_plain_file(self, entry: FileEntry, target: int) -> bool:
        """Make the empty file at a descriptor share the blocks of a plain file with a content; False when it cannot."""
        return self._tier.clone(entry, target)

    def presence(self, rev: str, path: str = "") -> Presence:
        """Where the bytes of files at or below a path of a revision are; nothing is read but manifests."""
        return self._warmer().presence(self._selected(rev, path)[1])

    @remembers_speed
    def warm(
        self, rev: str, path: str = "", *, page_cache: bool = False, progress: Progress | None = None
    ) -> WarmReport:
        """Bring files at or below a path of a revision here and make plain files of them.

        Args:
            rev: the revision.
            path: of a file or directory; empty for all.
            page_cache: also read the plain files, so that the kernel has them in memory.
            progress: called with bytes done, bytes in all and a name.

        Raises:
            PathNotFoundError: no such path. OutOfSpaceError: the files do not fit into the cache. Errors of
                reading: what came before them is here and is not fetched again.
        """
        files = self._selected(rev, path)[1]
        return self._warmer().warm(files, progress or no_progress, page_cache=page_cache)

    @remembers_speed
    def prefetch(
        self, rev: str, path: str = "", *, tensors: str | None = None, progress: Progress | None = None
    ) -> Prefetched:
        """Bring contents at or below a path of a revision into the cache, as they are stored.

        Args:
            rev: the revision.
            path: of a file or directory; empty for all.
            tensors: pattern of names; then only the chunks of those tensors of model files come.
            progress: called with bytes done, bytes in all and a name.

        Raises:
            PathNotFoundError: no such path or tensor. OutOfSpaceError: the cache cannot keep them. Errors of reading:
                what came before them is here and is not fetched again.
        """
        from shardfs.transfer import contents

        picked = self._picked(rev, path, tensors)
        lack = contents.lack(picked.chunks, self.store.index, self._cache)
        self._warmer().prefetch(picked, progress or no_progress)
        return Prefetched(picked.files, picked.bytes, picked.tensors, lack.chunks, lack.bytes)

    def plan_prefetch(self, rev: str, path: str = "", *, tensors: str | None = None) -> Prefetched:
        """What `prefetch` would bring; only manifests and, for tensors, headers of files are read."""
        from shardfs.transfer import contents

        picked = self._picked(rev, path, tensors)
        lack = contents.lack(picked.chunks, self.store.index, self._cache)
        return Prefetched(picked.files, picked.bytes, picked.tensors, lack.chunks, lack.bytes)

    def absent(self, rev: str, path: str = "") -> list[Absent]:
        """Files at or below a path of a revision that cannot be read without a remote."""
        from shardfs.transfer import absence

        files = self._selected(rev, path)[1]
        files = [(p, entry) for p, entry in files if not self._warmer().holds(entry)]
        return list(
            absence.absent(((p, manifest_of(e, self.objects)) for p, e in files), self.store.index, self._cache)
        )

    def pins(self) -> list[PinState]:
        """What this user has pinned, in all repositories, and how much of it is here."""
        from shardfs.transfer import keeping

        return keeping.states(self._cache)

    def pin(self, rev: str, path: str = "", *, progress: Progress | None = None) -> WarmReport:
        """As `warm`, and keep the plain files in the cache until `unpin`.

        Raises:
            UsageError: plain files are switched off. OutOfSpaceError: the files do not fit beside other pinned ones;
                nothing was fetched. Errors of `warm`.
        """
        from shardfs.transfer import keeping

        wish = keeping.Wish(self._identity(), rev, path, *self._selected(rev, path))
        return keeping.pin(self._cache, self._warmer(), wish, progress or no_progress)

    def unpin(self, rev: str | None = None, path: str = "") -> list[str]:
        """Take back the pin of a path of a revision, or all of this repository (None); returns their names."""
        from shardfs.transfer import keeping

        gone = keeping.unpin(self._cache, self._identity(), rev, path, lambda name: self.commit_of(name)[0])
        return [pin.name for pin in gone]

    def evict(self, rev: str | None = None, path: str = "", *, force: bool = False) -> int:
        """Remove plain files and payloads of a path of a revision from the cache, or of all repositories (None).

        Returns:
            The bytes that this freed.

        Raises:
            ConflictError: some are pinned and `force` is not set. Without a revision pinned files just stay.
        """
        from shardfs.transfer import keeping

        if rev is None:
            return keeping.evict_all(self._cache, force=force)
        return keeping.evict(self._cache, self.objects, self._selected(rev, path)[1], force=force)

    def _pinned(self) -> list[tuple[Kind, bytes]]:
        """The commits that pins of this repository keep."""
        from shardfs.transfer import keeping

        return keeping.references(self._cache, self.store.index, self._identity())

    def _identity(self) -> str:
        """What tells this repository from others of this user: its store directory, or the URL that it is a view of."""
        return self.url or str(self.store_path.resolve())

    def _selected(self, rev: str, path: str) -> tuple[CommitId, Files]:
        from shardfs.transfer import warming

        id_, commit = self.commit_of(rev)
        return id_, warming.select(self.objects, commit.tree, path)

    def _picked(self, rev: str, path: str, tensors: str | None) -> Picked:
        from shardfs.transfer import contents

        return contents.pick(self._selected(rev, path)[1], self.objects, self.chunks, tensors)

    def _warmer(self) -> Warmer:
        from shardfs.transfer import warming

        return warming.Warmer(self.store.index, self.objects, self.chunks, self._cache, self._tier)
