"""Commits as plain files: each file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shardfs.discovery import STORE_NAME
from shardfs.errors import AlreadyExistsError, LocalChangesError
from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, TreeEntry
from shardfs.history import paths
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.history.paths import Path as TreePath
from shardfs.history.paths import show
from shardfs.progress import Progress, no_progress
from shardfs.store.atomic import os_errors

Opener = Callable[[FileEntry], FileReader]
Clone = Callable[[FileEntry, int], bool]
"""Makes the empty file at a descriptor share the blocks of a plain file with a content; False when that cannot be."""
MayReplace = Callable[[TreePath, TreeEntry], bool]


@dataclass(slots=True)
class CheckoutReport:
    """What was written: files and links, and bytes of files."""

    files: int = 0
    bytes: int = 0


def write_files(
    target: Path,
    items: Iterable[tuple[TreePath, TreeEntry]],
    open_entry: Opener,
    *,
    may_replace: MayReplace,
    clone: Clone = lambda _entry, _fd: False,
    progress: Progress | None = None,
    total: int | None = None,
) -> CheckoutReport:
    """Write entries below `target`, parents as needed; existing equal links and directories are kept.

    Names come from verified trees, so they never hold "/" or ".."; a symbolic link in place of a parent
    directory is refused, so nothing is written outside `target`.

    Args:
        target: directory; made when missing.
        items: entries with their paths below `target`; directories before their content.
        open_entry: source of file contents.
        may_replace: asked before an existing file or link at a path is replaced by an entry.
        clone: tried before the content is written.
        progress: called after each block.
        total: bytes of all files, for progress.

    Raises:
        LocalChangesError: an existing file may not be replaced; nothing after it was written.
        AlreadyExistsError: a directory or a link to one is in the way, or a name is that of repositories.
        OutOfSpaceError, ReadOnlyError, StoreError: by the disk. Errors of `FileReader.read_at`.
    """
    report, tell = CheckoutReport(), progress or no_progress
    with os_errors(f"cannot write below {target}"):
        target.mkdir(parents=True, exist_ok=True)
    for path, entry in items:
        refuse_store(path)
        place = Path(os.fsdecode(os.path.join(os.fsencode(target), *path)))  # noqa: PTH118 - names are bytes
        with os_errors(f"cannot write {place}"):
            _make_parents(target, path[:-1])
            if isinstance(entry, DirEntry):
                _make_directory(place)
                continue
            _check_replace(place, path, entry, may_replace)
            if isinstance(entry, LinkEntry):
                _write_link(place, entry)
            else:
                for size in _write_file(place, entry, open_entry, clone):
                    report.bytes += size
                    tell(report.bytes, total, place.name)
        report.files += 1
    return report


def is_of_store(path: TreePath) -> bool:
    """Whether a path is that of a repository, or below it."""
    return os.fsencode(STORE_NAME) in path


def refuse_store(path: TreePath) -> None:
    """See that a commit of somebody else does not write into the repository that it is checked out in.

    Raises:
        AlreadyExistsError: a name in the path is that of repositories.
    """
    if is_of_store(path):
        msg = f"{show(path)} is not written: {STORE_NAME} is the name of repositories; name other files"
        raise AlreadyExistsError(msg)


def _check_replace(place: Path, path: TreePath, entry: TreeEntry, may_replace: MayReplace) -> None:
    if place.is_dir() and not place.is_symlink():
        msg = f"{place} is a directory; move it away first"
        raise AlreadyExistsError(msg)
    if (place.exists() or place.is_symlink()) and not may_replace(path, entry):
        msg = f"{show(path)} has changes that are stored nowhere; add it, or use --force to overwrite it"
        raise LocalChangesError(msg)


def _make_parents(target: Path, names: TreePath) -> None:
    folder = target
    for name in names:
        folder = folder / os.fsdecode(name)
        _make_directory(folder)


def _make_directory(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        msg = f"{folder} is not a directory; move it away first"
        raise AlreadyExistsError(msg)
    folder.mkdir(exist_ok=True)


def _temp_beside(place: Path) -> Path:
    return place.with_name(f".shardfs-{os.getpid()}-{os.urandom(6).hex()}")


def _write_link(place: Path, entry: LinkEntry) -> None:
    temp = _temp_beside(place)
    temp.symlink_to(os.fsdecode(entry.target))
    try:
        temp.replace(place)
    except BaseException:
        temp.unlink()
        raise


def _write_file(place: Path, entry: FileEntry, open_entry: Opener, clone: Clone) -> Iterator[int]:
    """Write a file; gives the bytes of each step."""
    temp = _temp_beside(place)
    mode = 0o777 if entry.executable else 0o666
    try:
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "r+b", buffering=0):  # noqa: PTH123 - a descriptor
            if clone(entry, fd):
                yield entry.size
            else:
                for block in open_entry(entry).blocks():
                    _write_block(fd, block)
                    yield len(block)
                os.ftruncate(fd, entry.size)
        temp.replace(place)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise


def _write_block(fd: int, block: bytes) -> None:
    """Write a block; blocks of zeros become holes (a 16 GiB sparse file stays sparse)."""
    if block[:1] == b"\0" and not any(memoryview(block)[:64]) and block.count(0) == len(block):
        os.lseek(fd, len(block), os.SEEK_CUR)
        return
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


def export(
    objects: Objects,
    tree: TreeId,
    open_entry: Opener,
    directory: Path,
    *,
    clone: Clone = lambda _entry, _fd: False,
    progress: Progress | None = None,
) -> CheckoutReport:
    """Write a whole tree into a directory that is missing or empty.

    Raises:
        AlreadyExistsError: the directory is not empty. Errors as `write_files`.
    """
    with os_errors(f"cannot read {directory}"):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            msg = f"{directory} is not an empty directory"
            raise AlreadyExistsError(msg)
    total = sum(entry.size for _, entry in paths.files(objects, tree))
    items = paths.walk(objects, tree)
    return write_files(
        directory, items, open_entry, may_replace=lambda *_: False, clone=clone, progress=progress, total=total
    )
