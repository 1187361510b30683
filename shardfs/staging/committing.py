"""From staging area to commit.

Order: chunks, manifests, trees and the commit become durable in packs; then the branch moves; then the area learns
its new base. A kill before the move leaves packs that nothing names and staging as it was; a kill after it leaves the
new commit, and the area is put on the new tip when it is opened next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shardfs.errors import AlreadyExistsError, NothingToCommitError, PathNotFoundError, UsageError
from shardfs.formats import ref as ref_format
from shardfs.formats.commit import MAX_MESSAGE_SIZE, Commit
from shardfs.formats.ids import CommitId, Kind, TreeId
from shardfs.formats.manifest import Media
from shardfs.formats.ref import BRANCHES, TAGS
from shardfs.formats.tree import EMPTY_TREE, FileEntry, Tree
from shardfs.history.content import manifest_of
from shardfs.history.paths import show, show_some
from shardfs.progress import Progress
from shardfs.staging import provenance
from shardfs.staging.bases import Bases, bases_for
from shardfs.staging.ingest import Ingest
from shardfs.staging.snapshot import PrivateFile, Snapshot
from shardfs.staging.workspace import Workspace
from shardfs.store.store import Batch

_log = logging.getLogger(__name__)

_LEFT_OUT: Final = (
    "written to since their fsync, so left as the last version has them, if it does; close and commit again"
)


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What the caller of `commit` decides; see `Repository.commit`."""

    message: str
    author: str
    time_us: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Path] = field(default_factory=dict)
    logs: Sequence[Path] = ()
    tag: str | None = None
    allow_empty: bool = False


def commit(repo: Workspace, branch: str, request: CommitRequest, progress: Progress | None = None) -> CommitId:
    """Turn the stable content of a branch's area into a commit; returns its id when it is durable.

    Raises:
        UsageError: a blank message, text that is not UTF-8, a bad tag name. AlreadyExistsError: the tag exists.
        NothingToCommitError: the area equals the tip. Errors of disk and lock: nothing was committed.
    """
    _check(repo, request)
    automatic = _provenance(repo, request)
    with repo.store.lock.hold("commit"):
        tip, area = repo.tip(branch), repo.area(branch)
        with area.snapshot() as snapshot:
            if snapshot.unchanged and tip is not None and not request.allow_empty:
                raise NothingToCommitError(_nothing(branch))
            made = _store(repo, branch, snapshot, request, automatic, progress)
            message = f"commit: {made.subject}"
            repo.store.refs.move(BRANCHES + branch, tip, made.id, author=request.author, message=message)
            area.mark_committed(snapshot, made.tree, request.time_us * 1000)
        if request.tag is not None:
            repo.store.refs.move(TAGS + request.tag, None, made.id, author=request.author, message="create")
    return made.id


def _check(repo: Workspace, request: CommitRequest) -> None:
    if not request.message.strip():
        msg = "a commit needs a message (-m)"
        raise UsageError(msg)
    for what, text in (("message", request.message), ("author", request.author)):
        if not _is_unicode(text):
            msg = f"the {what} is not UTF-8: {text[:80]!r}"
            raise UsageError(msg)
    if len(request.message.encode("utf-8")) > MAX_MESSAGE_SIZE:
        msg = f"the message is longer than {MAX_MESSAGE_SIZE} bytes"
        raise UsageError(msg)
    if "\n" in request.author or not request.author.strip():
        msg = f"not an author: {request.author!r}; write 'Name <address>'"
        raise UsageError(msg)
    if request.tag is not None and repo.store.refs.get(ref_format.full_name(TAGS, request.tag)) is not None:
        msg = f"tag {request.tag} exists already"
        raise AlreadyExistsError(msg)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _provenance(repo: Workspace, request: CommitRequest) -> dict[str, Any]:
    """What can be found out before the lock is taken: it may take long."""
    found: dict[str, Any] = {}
    code = provenance.code_version(repo.root or repo.store.layout.root)
    if code is not None:
        found["code"] = code
    if request.datasets:
        found["datasets"] = {name: provenance.dataset_digest(path) for name, path in request.datasets.items()}
    return found


def _nothing(branch: str) -> str:
    return f"nothing to commit: staging of {branch} equals its tip; add files or write below staging/ first"


def _store(
    repo: Workspace,
    branch: str,
    snapshot: Snapshot,
    request: CommitRequest,
    automatic: dict[str, Any],
    progress: Progress | None,
) -> Commit:
    """Make everything up to the commit object durable."""
    tip = repo.tip(branch)
    models = _staged_models(repo, snapshot)
    with repo.store.batch("commit") as batch:
        tree = _build(batch, snapshot, models, bases_for(repo, batch, tip), progress)
        if snapshot.left_out:
            _log.warning("commit of %s: %s: %s", branch, _LEFT_OUT, show_some(snapshot.left_out))
        before = EMPTY_TREE.id if tip is None else repo.objects.commit(tip).tree
        if tree == before and not request.allow_empty:
            raise NothingToCommitError(_nothing(branch))
        if models:
            automatic = {**automatic, "models": provenance.model_summary(models)}
        made = Commit(
            tree=tree,
            parents=() if tip is None else (tip,),
            author=request.author,
            time_us=request.time_us,
            message=request.message,
            meta=dict(request.meta),
            auto=automatic,
            attachments=_attach(batch, request.logs),
        )
        batch.put(Kind.COMMIT, made.to_bytes(), id_=made.id)
    return made


def _build(
    batch: Batch, snapshot: Snapshot, models: dict[str, Media], bases: Bases, progress: Progress | None
) -> TreeId:
    """Ingest private files, write the trees of changed directories; returns the tree of the root."""
    total, done = sum(file.size for file in snapshot.files), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, "commit")

    def ingest_private(file: PrivateFile) -> FileEntry:
        fd = file.open()
        try:
            below = None if file.below is None else (file.below.entry(), file.below.kept)
            size = None if file.live else file.size
            content = ingest.file(fd, b"/".join(file.path), size=size, below=below)
        finally:
            os.close(fd)
        if content.media is not None:
            models[show(file.path)] = content.media
        return content.entry(file.path[-1], executable=file.executable)

    def put_tree(tree: Tree) -> TreeId:
        return TreeId(batch.put(Kind.TREE, tree.to_bytes()))

    with Ingest(batch, advance, bases) as ingest:
        return snapshot.build(ingest_private, put_tree)


def _staged_models(repo: Workspace, snapshot: Snapshot) -> dict[str, Media]:
    """Recognised files among those that were added from the work tree; their manifests are stored already."""
    models: dict[str, Media] = {}
    for change in snapshot.changes():
        new = change.new
        if isinstance(new, FileEntry) and new.manifest is not None:
            media = manifest_of(new, repo.objects).media
            if media is not None:
                models[show(change.path)] = media
    return models


def _attach(batch: Batch, logs: Sequence[Path]) -> TreeId | None:
    """Store snapshots of log files; a log that grows meanwhile is taken up to the size it had."""
    if not logs:
        return None
    entries: dict[bytes, FileEntry] = {}
    with Ingest(batch) as ingest:
        for path in logs:
            name = os.fsencode(path.name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                msg = f"log file {path} cannot be read: {error.strerror}"
                raise PathNotFoundError(msg) from error
            try:
                entries[name] = ingest.file(fd, name, size=os.fstat(fd).st_size).entry(name)
            finally:
                os.close(fd)
    tree = Tree.of(list(entries.values()))
    return TreeId(batch.put(Kind.TREE, tree.to_bytes(), id_=tree.id))
