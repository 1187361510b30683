"""Commits into the work tree: check files out, switch branches, follow a pull.

Files of the work tree are replaced only when their content is in the store, or by force. A work tree without any
file of the old commit (a lazy clone, a repository that is only mounted) stays empty; in any other, files that are new
in the new commit appear, and files that someone deleted stay deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shardfs.diff.trees import Change, changes
from shardfs.errors import AlreadyExistsError, LocalChangesError, RefNotFoundError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId, TreeId
from shardfs.formats.ref import BRANCHES, REMOTES, Head
from shardfs.formats.tree import DirEntry, FileEntry, TreeEntry
from shardfs.history import paths
from shardfs.progress import Progress
from shardfs.staging.adding import root_of, stat_cache
from shardfs.staging.checkout import CheckoutReport, is_of_store, refuse_store, write_files
from shardfs.staging.comparing import Comparer, place_of
from shardfs.staging.statcache import StatCache
from shardfs.staging.workspace import Workspace

Items = list[tuple[paths.Path, TreeEntry]]


@dataclass(slots=True)
class SwitchReport:
    """Where HEAD is now, and which files of the work tree were replaced and removed."""

    branch: str | None
    commit: CommitId | None
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def checkout(
    repo: Workspace,
    rev: str,
    files: Sequence[str],
    *,
    into: Path | None,
    force: bool,
    progress: Progress | None,
) -> CheckoutReport:
    """See `Repository.checkout`."""
    tree = repo.commit_of(rev)[1].tree
    items = _selected(repo, tree, files)
    total = sum(entry.size for _, entry in items if isinstance(entry, FileEntry))
    cache = stat_cache(repo) if into is None else StatCache(None)
    target = root_of(repo) if into is None else into
    known = _KnownContent(repo, target, cache, force=force)
    report = write_files(
        target,
        known.unequal(items),
        repo.open_once,
        may_replace=known.may_replace,
        clone=repo.clone_plain_file,
        progress=progress,
        total=total,
    )
    _remember(target, items, cache)
    cache.save(repo.store.index.packs())
    return report


def switch(repo: Workspace, name: str, *, create: bool, detach: bool, start: str, force: bool) -> SwitchReport:
    """See `Repository.switch`."""
    refs, author = repo.store.refs, repo.settings.author
    with repo.store.lock.hold("switch"):
        before = repo.head_commit()
        if detach:
            commit = repo.resolve(name)
            head = Head(None, commit)
            after: CommitId | None = commit
        elif create:
            full = ref_format.full_name(BRANCHES, name)
            if refs.get(full) is not None:
                msg = f"branch {name!r} exists already"
                raise AlreadyExistsError(msg)
            head, after = Head(full), before if start == "HEAD" else repo.resolve(start)
        else:
            full = BRANCHES + name
            head, found = Head(full), refs.get(full) if ref_format.is_ref_name(full) else None
            if found is None:
                theirs = [ref.removeprefix(REMOTES) for ref in refs.list(REMOTES) if ref.split("/", 3)[3] == name]
                make = " ".join(["shardfs switch -c", name, *theirs[:1]])
                msg = f"no branch {name!r}; `{make}` makes it"
                raise RefNotFoundError(msg)
            after = found
        report = SwitchReport(None if detach else name, after)
        _update(repo, _tree(repo, before), _tree(repo, after), report, force=force)
        if create and after is not None and head.branch is not None:
            refs.move(head.branch, None, after, author=author, message=f"switch: from {start}")
        refs.set_head(head)
    return report


def follow(repo: Workspace, branch: str, old: CommitId | None, new: CommitId) -> None:
    """Update files of the work tree before a branch moves, if it is the current one.

    Raises:
        LocalChangesError: files with changes that are stored nowhere are in the way; nothing was changed.
    """
    if repo.current_branch() == branch:
        _update(repo, _tree(repo, old), _tree(repo, new), SwitchReport(branch, new), force=False)


def _tree(repo: Workspace, commit: CommitId | None) -> TreeId | None:
    return None if commit is None else repo.objects.commit(commit).tree


def _update(repo: Workspace, old: TreeId | None, new: TreeId | None, report: SwitchReport, *, force: bool) -> None:
    """Replace and remove files that the work tree has of `old` and that are different in `new`."""
    if repo.root is None or old == new:
        return
    cache = stat_cache(repo)
    comparer = Comparer(repo.root, repo.objects, cache)
    write: Items = []
    remove: list[paths.Path] = []
    blocked: list[str] = []
    in_use = _is_in_use(repo, repo.root, old)
    for change in changes(repo.objects, old, new):
        if not _is_of_work_tree(change):
            continue
        state = _state(repo.root, comparer, change)
        if state == "modified" and not force:
            blocked.append(paths.show(change.path))
        elif state in ("old", "modified") or (change.old is None and state == "absent" and in_use):
            if change.new is None:
                remove.append(change.path)
            else:
                write.append((change.path, change.new))
    if blocked:
        msg = f"{', '.join(blocked[:5])}: changes that are stored nowhere; add and commit them, or use --force"
        raise LocalChangesError(msg)
    first = _in_the_way(remove, {path for path, _ in write})
    for path in first:
        _unlink(repo.root, path)
    write_files(repo.root, write, repo.open_entry, may_replace=lambda *_: True, clone=repo.clone_plain_file)
    for path in set(remove) - first:
        _unlink(repo.root, path)
    _remember(repo.root, write, cache)
    cache.save(repo.store.index.packs())
    report.updated = [paths.show(path) for path, _ in write]
    report.removed = [paths.show(path) for path in remove]


def _is_of_work_tree(change: Change) -> bool:
    """Whether a change concerns work trees.

    Raises:
        AlreadyExistsError: it would write into a repository.
    """
    if change.new is not None:
        refuse_store(change.path)
    elif is_of_store(change.path):  # was never written, so what is there is not the commit's
        return False
    return not isinstance(change.old or change.new, DirEntry)  # an empty one, of which they know nothing


def _in_the_way(remove: Iterable[paths.Path], write: set[paths.Path]) -> set[paths.Path]:
    """Files that become directories, and files in directories that become files."""
    folders = {path[:depth] for path in write for depth in range(1, len(path))}
    return {path for path in remove if path in folders or any(path[:depth] in write for depth in range(1, len(path)))}


def _is_in_use(repo: Workspace, root: Path, tree: TreeId | None) -> bool:
    """Whether the work tree has any file of a commit."""
    if tree is None:
        return False
    return any(os.path.lexists(place_of(root, path)) for path, _ in paths.files(repo.objects, tree))


def _state(root: Path, comparer: Comparer, change: Change) -> str:
    """What the work tree has at a changed path: "absent", "old", "new" or "modified"."""
    raw = b"/".join(change.path)
    place = place_of(root, change.path)
    try:
        info = place.lstat()
    except OSError:
        return "absent"
    if place.is_dir() and not place.is_symlink():
        return "absent"
    if comparer.same(raw, info, change.new):
        return "new"
    # A work tree that fell behind commits made through the mount holds an older version: nothing is lost with it.
    stored = comparer.same(raw, info, change.old) or comparer.is_stored(raw, info)
    return "old" if stored else "modified"


def _unlink(root: Path, path: paths.Path) -> None:
    place = place_of(root, path)
    place.unlink(missing_ok=True)
    for folder in place.parents:
        if folder == root:
            return
        try:
            folder.rmdir()
        except OSError:
            return


def _selected(repo: Workspace, tree: TreeId, files: Sequence[str]) -> Items:
    if not files:
        return list(paths.walk(repo.objects, tree))
    found: dict[paths.Path, TreeEntry] = {}
    for file in files:
        path = paths.parse(file)
        entry = paths.lookup(repo.objects, tree, path)
        if isinstance(entry, DirEntry):
            found.update(paths.walk(repo.objects, entry.tree, path))
        else:
            found[path] = entry
    return list(found.items())


class _KnownContent:
    """Decides what a checkout may replace: files whose content is in the store, all of them by force."""

    def __init__(self, repo: Workspace, target: Path, cache: StatCache, *, force: bool) -> None:
        self._repo = repo
        self._target = target
        self._force = force
        self._comparer = Comparer(target, repo.objects, cache)

    def unequal(self, items: Items) -> Iterable[tuple[paths.Path, TreeEntry]]:
        """The items that the target does not have already."""
        for path, entry in items:
            if isinstance(entry, DirEntry) or not self._has(path, entry):
                yield path, entry

    def may_replace(self, path: paths.Path, entry: TreeEntry) -> bool:
        """Whether the file at `path` can be had again, or the caller does not care."""
        if self._force:
            return True
        raw = b"/".join(path)
        info = place_of(self._target, path).lstat()
        if self._comparer.is_stored(raw, info) or self._comparer.same(raw, info, entry):
            return True
        head = self._repo.head_commit()
        if head is None:
            return False
        try:
            committed = paths.lookup(self._repo.objects, self._repo.objects.commit(head).tree, path)
        except LookupError:
            return False
        return self._comparer.same(raw, info, committed)

    def _has(self, path: paths.Path, entry: TreeEntry) -> bool:
        try:
            info = place_of(self._target, path).lstat()
        except OSError:
            return False
        return self._comparer.same(b"/".join(path), info, entry)


def _remember(root: Path, items: Items, cache: StatCache) -> None:
    """Note the files just written, so that they are not read to find that they are unchanged."""
    for path, entry in items:
        if isinstance(entry, FileEntry):
            with suppress(OSError):
                cache.learn(b"/".join(path), place_of(root, path).lstat(), entry)
