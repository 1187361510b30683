"""From the work tree into staging, and out of it again.

Order: chunks and manifests become durable in packs, then the rows of the area name them. A kill in between leaves
packs that nothing names; running the same command again finishes the work.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardfs.errors import AreaError, LocalChangesError, PathNotFoundError, UsageError
from shardfs.formats.ids import Kind
from shardfs.formats.tree import EMPTY_TREE, DirEntry, FileEntry, TreeEntry
from shardfs.history import paths
from shardfs.progress import Progress
from shardfs.staging.area import Area
from shardfs.staging.bases import bases_for
from shardfs.staging.comparing import Comparer, Listing, place_of
from shardfs.staging.entries import Staging
from shardfs.staging.ingest import Ingest
from shardfs.staging.nodes import NodeKind, NodeStat, PathKey
from shardfs.staging.scan import Folder, Scanner
from shardfs.staging.smallfiles import SmallFiles
from shardfs.staging.statcache import FILE_NAME, StatCache
from shardfs.staging.unchanged import Unchanged
from shardfs.staging.workspace import Workspace
from shardfs.store.store import Batch

Item = tuple[PathKey, TreeEntry, int | None]
_IMPORT_FIRST: Final = "commit it or `shardfs reset` first"


@dataclass(slots=True)
class AddReport:
    """What `add` did: paths that changed in staging and that did not, bytes read and stored, paths removed."""

    files: int = 0
    unchanged: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    removed: int = 0


def root_of(repo: Workspace) -> Path:
    """The work tree.

    Raises:
        UsageError: the repository is bare.
    """
    if repo.root is None:
        msg = f"{repo.store.layout.root} is a bare repository: it has no work tree"
        raise UsageError(msg)
    return repo.root


def stat_cache(repo: Workspace) -> StatCache:
    """What the files of the work tree held when they were last read."""
    return StatCache(repo.store.layout.root / FILE_NAME, repo.store.index.packs())


def add(repo: Workspace, files: Iterable[str | Path], *, update_deleted: bool, progress: Progress | None) -> AddReport:
    """See `Repository.add`."""
    root = root_of(repo)
    targets = [Path(file) for file in files]
    if not targets:  # to the scanner, no path means all of the work tree
        return AddReport()
    found = list(Scanner(root).scan(targets))
    with repo.store.lock.hold("add"):
        area, cache = repo.area(), stat_cache(repo)
        if repo.store.index.lacks_sound_copies():
            cache.distrust()  # one of these files may be what heals it
        report, items = _stage(repo, root, found, Listing(area), cache, progress)
        area.put_entries(items)
        cache.save(repo.store.index.packs())
        if update_deleted:
            report.removed = _remove_missing(area, root, targets)
    return report


def _stage(
    repo: Workspace,
    root: Path,
    found: list[Folder],
    listing: Listing,
    cache: StatCache,
    progress: Progress | None,
) -> tuple[AddReport, list[Item]]:
    """Make the content of files durable; returns what differs from the area's listing."""
    report, items = AddReport(), []
    total, done = sum(map(_size, found)), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report.bytes_read += count
        if progress is not None:
            progress(done, total, "add")

    unchanged = Unchanged(listing, cache)
    base = os.fsencode(root)
    with repo.store.batch("add") as batch:
        items += _empty_folders(batch, found, listing)
        with Ingest(batch, advance, bases_for(repo, batch, repo.head_commit())) as ingest:
            staging = Staging(base, SmallFiles(base, batch, advance), ingest, cache)
            for folder in found:
                if unchanged.holds(folder):
                    done += _size(folder)
                    report.unchanged += len(folder.names)
                    continue
                before = len(items)
                for staged in staging.stage(folder.found()):
                    if not staged.was_read and isinstance(staged.entry, FileEntry):
                        done += staged.entry.size
                    node = listing.at(staged.path)
                    if node is None or node.entry != staged.entry:
                        items.append((tuple(staged.path.split(b"/")), staged.entry, staged.mtime_ns))
                added = len(items) - before
                report.files += added
                report.unchanged += len(folder.names) - added
                if not added:
                    unchanged.learn(folder)
        report.bytes_stored = batch.stored_bytes
    return report, items


def _size(folder: Folder) -> int:
    """Bytes of the files in a folder."""
    return sum(status.st_size for status in folder.statuses if stat.S_ISREG(status.st_mode))


def _empty_folders(batch: Batch, found: list[Folder], listing: Listing) -> list[Item]:
    """Directories without content that staging does not have."""
    parents = {folder.path.rpartition(b"/")[0] for folder in found}
    items: list[Item] = []
    for folder in found:
        path = folder.path
        if folder.names or not folder.whole or path in parents:
            continue
        node = listing.at(path)
        if node is None or node.kind is not NodeKind.DIR:
            if not items:
                batch.put(Kind.TREE, EMPTY_TREE.to_bytes())
            items.append((tuple(path.split(b"/")), DirEntry(path.rpartition(b"/")[2], EMPTY_TREE.id), None))
    return items


def _remove_missing(area: Area, root: Path, targets: list[Path]) -> int:
    """Remove from staging what is below the targets and no longer in the work tree; returns how many files."""
    starts = [_relative(root, target) for target in targets] or [()]
    return _remove_except(area, starts, lambda path: os.path.lexists(place_of(root, path)))


def _remove_except(area: Area, starts: list[PathKey], stays: Callable[[PathKey], bool]) -> int:
    """Remove what is at or below some paths and does not stay, emptied directories too; returns how many files."""
    gone = [path for path in _tracked(area, starts) if not stays(path)]
    for path in gone:
        area.remove(path)
    for path in reversed(_folders(area, starts)):  # what is in a directory before it
        if not stays(path) and not area.list(area.find(path).ino):
            area.remove(path)
    return len(gone)


def remove(repo: Workspace, files: Iterable[str | Path], *, keep: bool) -> list[str]:
    """See `Repository.remove`.

    Raises:
        PathNotFoundError: not in staging. LocalChangesError: a file of the work tree has changes that are stored
            nowhere; nothing was removed.
    """
    root = root_of(repo)
    targets = [_relative(root, Path(file)) for file in files]
    with repo.store.lock.hold("rm"):
        area = repo.area()
        tracked: list[PathKey] = []
        for target in targets:
            below = _tracked(area, [target])
            if not below and not _exists(area, target):
                msg = f"{paths.show(target)} is not in staging"
                raise PathNotFoundError(msg)
            tracked += below
        doomed = [] if keep else _unchanged_files(repo, root, area, tracked)
        for target in targets:
            if _exists(area, target):
                area.remove(target)
        for place in doomed:
            place.unlink(missing_ok=True)
    return [paths.show(path) for path in tracked]


def _unchanged_files(repo: Workspace, root: Path, area: Area, tracked: list[PathKey]) -> list[Path]:
    """The files of the work tree behind staged paths, all of which must be as they are in staging."""
    comparer, listing = Comparer(root, repo.objects, stat_cache(repo)), Listing(area)
    doomed = []
    for path in tracked:
        place = place_of(root, path)
        if os.path.lexists(place):
            node = listing.at(b"/".join(path))
            if node is None or not comparer.same(b"/".join(path), place.lstat(), node.entry):
                msg = f"{paths.show(path)} has changes that are stored nowhere; add it first, or keep it with --keep"
                raise LocalChangesError(msg)
            doomed.append(place)
    return doomed


def reset(repo: Workspace, files: Iterable[str | Path]) -> list[str]:
    """See `Repository.reset`."""
    with repo.store.lock.hold("reset"):
        area = repo.area()
        targets = [_relative(root_of(repo), Path(file)) for file in files]
        changed = [c for c in area.changes() if not targets or any(c.path[: len(t)] == t for t in targets)]
        if not targets:
            tip = repo.head_commit()
            commit = None if tip is None else repo.objects.commit(tip)
            area.reset(commit.tree if commit else None, commit.time_us * 1000 if commit else 0)
        else:
            for change in changed:
                if change.old is not None:
                    area.put_entry(change.path, change.old)
                elif _exists(area, change.path):
                    area.remove(change.path)
    return [paths.show(change.path) for change in changed]


def stage_directory(repo: Workspace, directory: Path, branch: str, progress: Progress | None) -> None:
    """Make a branch's staging equal to a directory's content.

    Raises:
        PathNotFoundError: no such directory. LocalChangesError: staging has changes already.
    """
    if not directory.is_dir():
        msg = f"{directory} is not a directory"
        raise PathNotFoundError(msg)
    found = list(Scanner(directory).scan())
    with repo.store.lock.hold("import"):
        area = repo.area(branch)
        if next(area.changes(), None) is not None:
            msg = f"staging of {branch} has changes; {_IMPORT_FIRST}"
            raise LocalChangesError(msg)
        inside = repo.root is not None and directory.resolve() == repo.root.resolve()
        cache = stat_cache(repo) if inside else StatCache(None)
        _, items = _stage(repo, directory, found, Listing(area), cache, progress)
        wanted = {tuple(path.split(b"/")) for folder in found for path in _paths(folder)}
        _remove_except(area, [()], wanted.__contains__)
        area.put_entries(items)
        cache.save(repo.store.index.packs())


def _paths(folder: Folder) -> Iterator[bytes]:
    """A directory and what was found in it."""
    yield folder.path
    for path, _ in folder.found():
        yield path


def _relative(root: Path, target: Path) -> PathKey:
    """A user's path as names below the root.

    Raises:
        UsageError: outside of the work tree.
    """
    absolute = Path(os.path.abspath(target))  # noqa: PTH100 - no links are followed
    folder = absolute.parent.resolve() / absolute.name if absolute != absolute.parent else absolute
    try:
        return paths.parse(folder.relative_to(root.resolve()).as_posix())
    except ValueError:
        msg = f"{target} is outside of {root}"
        raise UsageError(msg) from None


def _exists(area: Area, path: PathKey) -> bool:
    try:
        area.find(path)
    except AreaError:
        return False
    return True


def _tracked(area: Area, targets: list[PathKey]) -> list[PathKey]:
    """Files and links of staging at or below some paths."""
    return sorted({path for path, node in _below(area, targets) if node.kind is not NodeKind.DIR})


def _folders(area: Area, targets: list[PathKey]) -> list[PathKey]:
    """Directories of staging at or below some paths, each before what is in it; never the root."""
    return sorted({path for path, node in _below(area, targets) if node.kind is NodeKind.DIR and path})


def _below(area: Area, targets: list[PathKey]) -> Iterator[tuple[PathKey, NodeStat]]:
    for target in targets:
        try:
            pending = [(target, area.find(target))]
        except AreaError:
            continue
        while pending:
            path, node = pending.pop()
            yield path, node
            if node.kind is NodeKind.DIR:
                pending += [((*path, child.name), child) for child in area.list(node.ino)]
