"""The facade: one object with all that can be done with a repository. It holds no logic.

Remotes and maintenance are imported by the methods that need them: `shardfs add` starts in half the time without.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from shardfs.diff import trees as tree_diff
from shardfs.diff.trees import Change
from shardfs.errors import PathNotFoundError, RefNotFoundError, UsageError
from shardfs.formats import ref as ref_format
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind
from shardfs.formats.ref import BRANCHES, REMOTES, TAGS, Head, LogLine
from shardfs.formats.tree import DirEntry, FileEntry, TreeEntry
from shardfs.history import branches, paths, revisions, walk
from shardfs.history.content import ContentFile, FileReader
from shardfs.history.versions import Version, VersionList
from shardfs.progress import Progress
from shardfs.sharing import Sharing
from shardfs.staging import adding, areas, checkout, committing, switching
from shardfs.staging.adding import AddReport
from shardfs.staging.area import Area
from shardfs.staging.checkout import CheckoutReport
from shardfs.staging.committing import CommitRequest
from shardfs.staging.status import Status, status
from shardfs.staging.switching import SwitchReport

if TYPE_CHECKING:
    from shardfs.maintenance import findings, gc, mending, optimize, parts, stats, verify
    from shardfs.transfer import facts

READ_BUFFER_SIZE = 1 << 20  # bytes that a file opened by `Repository.read` reads ahead


class Repository(Sharing):
    """A repository. Safe to share between threads; a context manager, or close() once.

    Attributes:
        store_path: the store directory.
        root: the work tree, None for a bare repository or a view of a remote.
        read_only: whether every change is refused: a view of a remote, or a store that this user cannot write.
        settings: settings in force.
        store, objects, reader, chunks: the parts, for tools that need more than the facade.
    """

    # Names

    def head(self) -> Head:
        """What HEAD names: a branch (full name) or a commit."""
        return self.store.refs.head()

    def head_commit(self) -> CommitId | None:
        """The commit at HEAD; None on a branch without commits."""
        return self.store.refs.head_commit()

    def current_branch(self) -> str | None:
        """Short name of the branch that HEAD names; None when HEAD is detached."""
        branch = self.head().branch
        return None if branch is None else branch.removeprefix(BRANCHES)

    def ref(self, name: str) -> CommitId | None:
        """The commit that a full ref name names, or None."""
        return self.store.refs.get(name)

    def tip(self, branch: str) -> CommitId | None:
        """The newest commit of a branch (short name), or None."""
        return self.store.refs.get(BRANCHES + branch)

    def branches(self) -> dict[str, CommitId]:
        """Branches by short name, sorted."""
        return branches.listing(self.store.refs, BRANCHES)

    def tags(self) -> dict[str, CommitId]:
        """Tags by short name, sorted."""
        return branches.listing(self.store.refs, TAGS)

    def remote_branches(self) -> dict[str, CommitId]:
        """Branches of remotes as of the last fetch, by "remote/branch"."""
        return branches.listing(self.store.refs, REMOTES)

    def commits_with_prefix(self, digits: str) -> list[CommitId]:
        """Commits whose hexadecimal id starts with `digits`, at most 20."""
        low, high = bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))
        return [CommitId(i) for i in self.store.index.match(Kind.COMMIT, low, high)]

    def resolve(self, rev: str) -> CommitId:
        """The commit that a revision names: id, short id, branch, tag, HEAD, remote/branch, with ~n and ^.

        Raises:
            RevisionNotFoundError: it names none, or more than one.
        """
        return revisions.resolve(rev, self, self.objects)

    def commit_of(self, rev: str) -> tuple[CommitId, Commit]:
        """Id and content of the commit that a revision names."""
        id_ = self.resolve(rev)
        return id_, self.objects.commit(id_)

    def create_branch(self, name: str, rev: str = "HEAD") -> CommitId:
        """Make a branch at a revision; returns its commit.

        Raises:
            UsageError: not a name. AlreadyExistsError: taken. RevisionNotFoundError: no such revision.
        """
        return branches.create(self._writable().refs, BRANCHES, name, self.resolve(rev), self.settings.author)

    def delete_branch(self, name: str, *, force: bool = False) -> CommitId:
        """Delete a branch; returns where it was.

        Raises:
            RefNotFoundError: no such branch. UsageError: it is the current one. NotFastForwardError: commits of it
                are on no other branch and `force` is not set.
        """
        return branches.delete_branch(
            self._writable().refs, self.objects, name, force=force, author=self.settings.author
        )

    def create_tag(self, name: str, rev: str = "HEAD", *, force: bool = False) -> CommitId:
        """Make a tag at a revision (`force`: move an existing one); returns its commit."""
        refs = self._writable().refs
        return branches.create(refs, TAGS, name, self.resolve(rev), self.settings.author, force=force)

    def delete_tag(self, name: str) -> CommitId:
        """Delete a tag; returns where it was."""
        return branches.delete(self._writable().refs, TAGS, name, self.settings.author)

    def reflog(self, name: str | None = None) -> list[LogLine]:
        """Moves of a branch (short or full name; None: the current one), newest first."""
        short = name or self.current_branch() or ""
        full = short if short.startswith("refs/") else BRANCHES + short
        if not ref_format.is_ref_name(full):
            msg = f"no branch {short!r}"
            raise RefNotFoundError(msg)
        return self.store.refs.log(full)

    def switch(
        self, name: str, *, create: bool = False, detach: bool = False, start: str = "HEAD", force: bool = False
    ) -> SwitchReport:
        """Make a branch (or, with `detach`, a commit) current and update unchanged files of the work tree.

        Raises:
            RefNotFoundError: no such branch. LocalChangesError: files with changes that are stored nowhere are in
                the way; nothing was changed.
        """
        self._writable()
        return switching.switch(self, name, create=create, detach=detach, start=start, force=force)

    # History

    def log(
        self, rev: str = "HEAD", *, limit: int | None = None, path: str = "", first_parent: bool = False
    ) -> Iterator[tuple[CommitId, Commit]]:
        """Commits reachable from a revision, newest first; with `path` those that changed it."""
        tip = self.resolve(rev)
        found = walk.first_parents(self.objects, tip) if first_parent else walk.ancestors(self.objects, [tip])
        names = paths.parse(path)
        for count, item in enumerate(item for item in found if not names or walk.touches(self.objects, item[1], names)):
            if limit is not None and count >= limit:
                return
            yield item

    def versions(self, branch: str | None = None) -> list[Version]:
        """The line of first parents of a branch (None: the current one), oldest first."""
        tip = self.head_commit() if branch is None else self.tip(branch)
        with self._guard:
            known = self._versions.setdefault(branch or "", VersionList(self.objects))
        return known.at(tip)

    def diff(self, old: str, new: str, path: str = "") -> list[Change]:
        """Changed files and links from one revision to another, below `path`."""
        names = paths.parse(path)
        found = tree_diff.changes(self.objects, self.commit_of(old)[1].tree, self.commit_of(new)[1].tree)
        return [change for change in found if change.path[: len(names)] == names]

    def shared_bytes(self, change: Change) -> int:
        """Bytes of the new file of a change that lie in chunks of the old one; 0 unless both are files."""
        if isinstance(change.old, FileEntry) and isinstance(change.new, FileEntry):
            return tree_diff.shared_bytes(self.objects, change.old, change.new)
        return 0

    # Content

    def entry(self, rev: str, path: str = "") -> TreeEntry:
        """The file, link or directory at a path of a revision.

        Raises:
            PathNotFoundError: nothing there.
        """
        return paths.lookup(self.objects, self.commit_of(rev)[1].tree, paths.parse(path))

    def entries(self, rev: str, path: str = "") -> list[TreeEntry]:
        """The entries of a directory of a revision, or the one file there."""
        entry = self.entry(rev, path)
        return [*self.objects.tree(entry.tree).entries] if isinstance(entry, DirEntry) else [entry]

    def walk(self, rev: str, path: str = "") -> Iterator[tuple[paths.Path, TreeEntry]]:
        """All entries below a directory of a revision, with full paths, directories before their content."""
        entry, names = self.entry(rev, path), paths.parse(path)
        if isinstance(entry, DirEntry):
            yield from paths.walk(self.objects, entry.tree, names)
        else:
            yield names, entry

    def open_entry(self, entry: FileEntry, path: bytes = b"") -> FileReader:
        """Random access to the content of a file of a commit.

        With its path in the commit the order of the reads is kept when the reader is closed, and used the next time.
        """
        watch = partial(self._ahead.watch, path=path)
        rescue = partial(self._rescue, path=path)
        return FileReader(entry, self.objects, self.reader, watch, self.reader.holds, rescue, self._tier.chunk)

    def file_facts(self, entry: FileEntry) -> facts.FileFacts:
        """How a file of a commit is stored: chunks, stored and local bytes, codecs."""
        from shardfs.transfer import facts

        return facts.file_facts(entry, self.objects, self.store, self._cache)

    def read(self, where: str) -> BinaryIO:
        """The file at "REV:PATH" as a seekable binary file that torch.load and safetensors accept.

        Raises:
            UsageError: not of that form. RevisionNotFoundError, PathNotFoundError: no such revision or file.
        """
        rev, colon, path = where.partition(":")
        if not colon or not path:
            msg = f"{where!r}: write REVISION:PATH"
            raise UsageError(msg)
        entry = self.entry(rev or "HEAD", path)
        if not isinstance(entry, FileEntry):
            msg = f"{path} is not a regular file in {rev or 'HEAD'}"
            raise PathNotFoundError(msg)
        reader = self.open_entry(entry, b"/".join(paths.parse(path)))
        return io.BufferedReader(ContentFile(reader, path), READ_BUFFER_SIZE)

    def attachments(self, rev: str) -> list[FileEntry]:
        """Files that were attached to a commit (training logs)."""
        tree = self.commit_of(rev)[1].attachments
        entries = self.objects.tree(tree).entries if tree else ()
        return [entry for entry in entries if isinstance(entry, FileEntry)]

    # Staging

    def area(self, branch: str | None = None) -> Area:
        """The staging area of a branch (None: the current one), brought up to the branch's tip."""
        self._writable()
        name = branch or self.current_branch()
        if name is None:
            msg = "HEAD is detached: there is no staging area; `shardfs switch BRANCH` first"
            raise UsageError(msg)
        with self._guard:
            if name not in self._areas:
                self._areas[name] = areas.open_area(self, name)
            area = self._areas[name]
        areas.refresh(self, name, area)  # takes the store's lock, and who holds that may be about to ask for the area
        return area

    def add(
        self, files: Iterable[str | Path], *, update_deleted: bool = False, progress: Progress | None = None
    ) -> AddReport:
        """Put files, directories or glob patterns of the work tree into staging; chunked and durable at once.

        Raises:
            PathNotFoundError: a path matches nothing. UnsupportedFileError: a device, socket or pipe was named.
            FileChangedError: a file was written to meanwhile; nothing was staged.
        """
        return adding.add(self, files, update_deleted=update_deleted, progress=progress)

    def remove(self, files: Iterable[str | Path], *, keep: bool = False) -> list[str]:
        """Remove paths from staging and, unless `keep`, unchanged files from the work tree; returns the paths."""
        return adding.remove(self, files, keep=keep)

    def reset(self, files: Iterable[str | Path] = ()) -> list[str]:
        """Make paths of staging (all without any) as they are in the branch's tip; returns the paths."""
        return adding.reset(self, files)

    def status(self) -> Status:
        """What is staged, and how the work tree differs from staging."""
        return status(self)

    def commit(  # noqa: PLR0913 - options by keyword
        self,
        message: str,
        *,
        author: str | None = None,
        meta: Mapping[str, Any] | None = None,
        datasets: Mapping[str, Path] | None = None,
        logs: Sequence[Path] = (),
        time_us: int | None = None,
        branch: str | None = None,
        tag: str | None = None,
        allow_empty: bool = False,
        progress: Progress | None = None,
    ) -> CommitId:
        """Turn a staging area into a commit; returns its id when it is durable.

        Args:
            message: any text that is not blank.
            author: "Name <address>"; None for the configured one.
            meta: JSON values by key.
            datasets: files or directories whose digests are recorded by name.
            logs: files that are attached to the commit.
            time_us: microseconds since 1970; None for now.
            branch: short name; None for the current one.
            tag: also make this tag.
            allow_empty: make a commit even if nothing changed.
            progress: called with bytes done, bytes in all and a name.

        Raises:
            NothingToCommitError: the area equals the tip. RefChangedError: another commit came first; staging is
                as it was. Errors of the disk: nothing was committed.
        """
        request = CommitRequest(
            message=message,
            author=author or self.settings.author,
            time_us=time.time_ns() // 1000 if time_us is None else time_us,
            meta=dict(meta or {}),
            datasets=dict(datasets or {}),
            logs=tuple(logs),
            tag=tag,
            allow_empty=allow_empty,
        )
        return committing.commit(self, self._branch(branch), request, progress)

    def import_directory(self, directory: Path, message: str, **options: Any) -> CommitId:
        """Make a directory's whole content the next commit; options as of `commit`."""
        adding.stage_directory(self, directory, self._branch(options.get("branch")), options.get("progress"))
        return self.commit(message, **options)

    def checkout(
        self,
        rev: str,
        files: Sequence[str] = (),
        *,
        into: Path | None = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> CheckoutReport:
        """Write files of a revision (all without any) as plain files into the work tree or `into`.

        Raises:
            PathNotFoundError: not in that revision. LocalChangesError: a file has changes that are stored nowhere
                and `force` is not set.
        """
        return switching.checkout(self, rev, files, into=into, force=force, progress=progress)

    def export(self, rev: str, directory: Path, progress: Progress | None = None) -> CheckoutReport:
        """Write a whole revision into a directory that is missing or empty."""
        tree = self.commit_of(rev)[1].tree
        return checkout.export(
            self.objects, tree, self.open_once, directory, clone=self.clone_plain_file, progress=progress
        )

    # Maintenance

    def stats(self, rev: str | None = None) -> stats.Stats:
        """Bytes, counts, a row per codec and one per commit, of all versions or of those up to a revision."""
        from shardfs.maintenance import stats

        if rev is not None:
            return stats.stats_up_to(self.store, self.objects, self.resolve(rev))
        return stats.stats(self.store, self.objects, self.store.refs.list().values())

    def parts(self, rev: str = "HEAD", by: parts.By = "file") -> list[parts.Part]:
        """How each file of a revision, or with `by="tensor"` each tensor of its models, is stored; largest first."""
        from shardfs.maintenance import parts

        return parts.parts(self.store.index, self.objects, self.reader, self.commit_of(rev)[1].tree, by)

    def stats_snapshot(self) -> dict[str, Any]:
        """Cheap counters of this process and store by part, for `.shardfs/stats.json` and metrics.

        Named tuples say in their docstrings what each field is; what says "now" can fall, all else only grows.
        """
        return {
            "packs": self.store.index.totals(),
            "reader": self.reader.counters(),
            "plain_files": self._tier.counters(),
            "prefetch": self._ahead.counters(self.reader.ahead_bytes),
            "remote": self.reader.traffic,
            "remotes": self._remote_counts(),
        }

    def verify(self, *, remote: bool = False, progress: Progress | None = None) -> verify.VerifyReport:
        """Check every pack, object, chunk and ref; finds everything, mends nothing.

        Damaged payloads are noted in the index, so that adding their content stores it again.
        """
        from shardfs.maintenance import verify

        return verify.verify(self.store, self.objects, self.reader, remote=remote, progress=progress)

    def repair(self, *, progress: Progress | None = None) -> mending.MendReport:
        """Store again what is in damaged packs, from other packs, the cache and remotes; nothing is deleted."""
        from shardfs.maintenance import mending

        return mending.mend(self._writable(), self.reader, progress=progress)

    def gc(
        self, *, dry_run: bool = False, grace_s: float | None = None, progress: Progress | None = None
    ) -> gc.GcReport:
        """Delete what no ref, reflog or staging area needs."""
        from shardfs.maintenance import gc

        keep, grace = self._references(), gc.GRACE_S if grace_s is None else grace_s
        return gc.gc(self._writable(), self.objects, keep=keep, grace_s=grace, dry_run=dry_run, progress=progress)

    def optimize(
        self, *, dry_run: bool = False, grace_s: float | None = None, progress: Progress | None = None
    ) -> optimize.OptimizeReport:
        """Encode chunks anew so that branches and tags are read quickly, and merge small packs; no id changes."""
        from shardfs.maintenance import gc, optimize

        return optimize.optimize(
            self._writable(),
            self.objects,
            keep=self._references(),
            max_depth=self.settings.chain_depth,
            budget_bytes=self.settings.memory_budget,
            grace_s=gc.GRACE_S if grace_s is None else grace_s,
            dry_run=dry_run,
            progress=progress,
        )

    def diagnose(self, *, remote: bool = False) -> list[findings.Finding]:
        """What is wrong or could be better, each with the command that mends it; worst first.

        Args:
            remote: also ask every remote whether it answers, for at most 10 s.
        """
        from shardfs.maintenance import doctor, findings, reachability

        found = doctor.diagnose(self.store, self.settings)
        found += doctor.clock(self.store, self.objects)
        if remote:
            found += reachability.diagnose(self.settings)
        return findings.worst_first(found)

    def fix(self) -> list[findings.Finding]:
        """Mend what can be mended without losing anything; returns what was done."""
        from shardfs.maintenance import doctor

        return doctor.fix(self.store, self.settings)

    def rebuild_index(self) -> list[str]:
        """Make the index again from the packs; returns what could not be read."""
        return [str(error) for error in self._writable().rebuild_index()]

    def _references(self) -> list[tuple[Kind, bytes]]:
        """What staging areas and pins need."""
        return [*areas.references(self), *self._pinned()]

    def _follow(self, branch: str, old: CommitId | None, new: CommitId) -> None:
        switching.follow(self, branch, old, new)

    def _branch(self, name: str | None) -> str:
        self._writable()
        if name is not None:
            ref_format.full_name(BRANCHES, name)
        found = name or self.current_branch()
        if found is None:
            msg = "HEAD is detached; name a branch or `shardfs switch` to one"
            raise UsageError(msg)
        return found
