"""Verification: read every byte of every pack, follow every name, report everything that is wrong, mend nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shardfs.errors import RefCorruptedError, StoreError
from shardfs.formats.ids import CommitId
from shardfs.history.objects import Objects
from shardfs.maintenance.contents import Contents, check_contents
from shardfs.maintenance.packcheck import PackChecks, check_packs
from shardfs.maintenance.problems import Problem
from shardfs.maintenance.soundness import Soundness
from shardfs.progress import Progress, no_progress
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader


@dataclass
class VerifyReport:
    """The outcome.

    Attributes:
        packs, read_bytes: packs read, and their bytes.
        payloads: objects and chunks in them that were decoded and compared with their ids.
        refs, commits, trees, files, chunks: what the names reach, each counted once.
        remote_chunks: chunks of those that are only at a remote.
        problems: everything that is wrong.
    """

    packs: int = 0
    read_bytes: int = 0
    payloads: int = 0
    refs: int = 0
    commits: int = 0
    trees: int = 0
    files: int = 0
    chunks: int = 0
    remote_chunks: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    store: Store,
    objects: Objects,
    reader: Reader,
    *,
    commits: Iterable[CommitId] | None = None,
    remote: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check packs, index, refs and everything that they reach; never stops at a problem.

    Bounded memory: one payload at a time, and 32 bytes for each id.

    Args:
        store: what to check.
        objects: reads history, also from remotes.
        reader: gets chunks from remotes when `remote` is set.
        commits: check what these need instead of what the refs need.
        remote: also fetch and check chunks that are only at a remote.
        progress: told the bytes of packs read.

    Raises:
        StoreError: the store's directory cannot be read at all.
    """
    report = VerifyReport()
    checks = check_packs(store, Soundness(store), progress or no_progress)
    report.packs, report.read_bytes, report.payloads = checks.packs, checks.read_bytes, checks.payloads
    tips = _tips(store, report) if commits is None else {id_: id_.hex()[:12] for id_ in commits}
    contents = check_contents(store, objects, checks, tips, reader if remote else None)
    report.commits, report.trees = len(contents.commits), len(contents.trees)
    report.files, report.chunks = contents.files, len(contents.chunks)
    report.remote_chunks = contents.remote_chunks
    report.problems += [*checks.problems, *contents.problems, *_unused_damage(checks, contents)]
    return report


def _tips(store: Store, report: VerifyReport) -> dict[CommitId, str]:
    """Commits that refs and HEAD name, with the name of one ref each."""
    tips: dict[CommitId, str] = {}
    for name in store.refs.names():
        report.refs += 1
        try:
            commit = store.refs.get(name)
        except (RefCorruptedError, StoreError) as error:
            report.problems.append(Problem("ref", name, str(error)))
        else:
            if commit is not None:
                tips.setdefault(commit, name)
    try:
        head = store.refs.head()
    except RefCorruptedError as error:
        report.problems.append(Problem("ref", "HEAD", str(error)))
    else:
        if head.commit is not None:
            tips.setdefault(head.commit, "HEAD")
    return tips


def _unused_damage(checks: PackChecks, contents: Contents) -> Iterable[Problem]:
    """Damaged payloads that no name needs, or of which there is another copy."""
    for id_, (entry, pack, problem) in checks.damaged.items():
        if id_ not in contents.reported:
            note = "; another copy is sound" if id_ in checks.sound else ""
            yield Problem(entry.kind.name.lower(), id_.hex(), problem + note, pack=pack.hex())
