"""The refs of a repository as a mount shows them: re-read when somebody looks, but not more often than needed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from shardfs.errors import ShardfsError
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES
from shardfs.mount.source import Source, Version

_log = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 0.15  # with the engines' timeouts of names a change is visible within a second
REREAD_EVERY_S: Final = 5.0  # without any sign of a change: a writer killed between a ref and its listing
REMOTE_EVERY_S: Final = 1.0
REMOTE_WAIT_S: Final = 0.5  # how long a look at a remote's refs waits before it shows the last known ones


@dataclass(frozen=True)
class RefsState:
    """The refs at one moment; `number` counts the states that differ."""

    number: int
    tip: CommitId | None  # of the mount's branch, or the detached HEAD
    branches: dict[bytes, CommitId]
    tags: dict[bytes, CommitId]
    fetched: frozenset[CommitId]  # tips of branches of remotes
    since_ns: int = field(compare=False)  # when this mount first saw it
    line: Callable[[], Sequence[Version]] = field(compare=False)

    @cached_property
    def versions(self) -> dict[bytes, CommitId]:
        """The first-parent history, oldest first. Walked when first asked for: mounting must not take long."""
        return {v.name.encode("utf-8", "surrogateescape"): v.commit for v in self.line()}

    def names(self) -> tuple[object, ...]:
        """What tells one state from another."""
        return (self.tip, self.branches, self.tags, self.fetched)

    def tips(self) -> set[CommitId]:
        """Every commit that a name names."""
        found = {*self.branches.values(), *self.tags.values(), *self.fetched}
        return found if self.tip is None else found | {self.tip}


class Refs:
    """Names and the commits behind them. Safe to share between threads."""

    def __init__(self, source: Source, branch: str | None, moved: Callable[[], None] = lambda: None) -> None:
        """Look at a repository.

        Args:
            source: the repository.
            branch: short name of the branch that `latest` and `versions` follow; None for a detached HEAD.
            moved: called by a look that found other refs than the one before.
        """
        self._source = source
        self._branch = branch
        self._moved = moved
        self._guard = threading.Lock()
        self._state: RefsState | None = None
        self._signature: tuple[int, ...] | None = None
        self._checked = self._read = 0.0
        self._known: set[CommitId] = set()  # what is reachable from these tips of that state
        self._known_tips: set[CommitId] = set()
        self._known_number = 0
        self._refresher = _Refresher(source) if source.url is not None else None

    def state(self) -> RefsState:
        """The refs now, at most CHECK_EVERY_S old.

        Raises:
            RefCorruptedError: a ref is damaged and there is no earlier state.
        """
        state = self._state
        if state is not None and time.monotonic() - self._checked < CHECK_EVERY_S:
            return state
        if self._refresher is not None:
            self._refresher.refresh()
        with self._guard:
            now = time.monotonic()
            if self._state is not None and now - self._checked < CHECK_EVERY_S:
                return self._state
            last = fresh = self._state
            signature = _signature(self._source.store_path)
            if fresh is None or signature != self._signature or now - self._read > REREAD_EVERY_S:
                self._state = fresh = self._reread(last)
                self._signature, self._read = signature, now
            self._checked = time.monotonic()
        if last is not None and fresh is not last:
            self._moved()
        return fresh

    def expire(self) -> None:
        """Something moved a ref: the next look reads them again."""
        self._checked = 0.0

    def commits(self) -> set[CommitId]:
        """Every commit that is reachable from a ref. Later calls cost only what is new."""
        state = self.state()
        with self._guard:
            if state.number != self._known_number:
                self._known = self._reachable(state.tips())
                self._known_number = state.number
                self._known_tips = state.tips()
            return self._known

    def close(self) -> None:
        """Stop looking at the remote."""
        if self._refresher is not None:
            self._refresher.close()

    def _reread(self, last: RefsState | None) -> RefsState:
        try:
            fresh = self._load(1 if last is None else last.number + 1)
        except ShardfsError:
            if last is None:
                raise
            _log.exception("refs cannot be read, the last known ones are shown")
            return last
        same = last is not None and last.names() == fresh.names()
        return last if same and last is not None else fresh

    def _load(self, number: int) -> RefsState:
        branches, tags = self._source.branches(), self._source.tags()
        branch = self._branch
        if branch is not None:
            # Asked by name, a branch whose file was lost is an error; in the listing it is only absent.
            tip = branches.get(branch) or self._source.tip(branch)
        else:
            head = self._source.head()
            tip = head.commit if head.branch is None else branches.get(head.branch.removeprefix(BRANCHES))
        return RefsState(
            number,
            tip,
            {name.encode("utf-8", "surrogateescape"): id_ for name, id_ in branches.items()},
            {name.encode("utf-8", "surrogateescape"): id_ for name, id_ in tags.items()},
            frozenset(self._source.remote_branches().values()),
            time.time_ns(),
            lambda: self._source.versions(branch) if tip is not None and branch is not None else (),
        )

    def _reachable(self, tips: set[CommitId]) -> set[CommitId]:
        """The closure of `tips`, from the last one if that is part of it: refs mostly grow."""
        known = self._known
        if known:
            fresh, met = self._walk(tips, known)
            if self._known_tips <= met | fresh:
                return known | fresh
        return self._walk(tips, set())[0]

    def _walk(self, tips: set[CommitId], stop: set[CommitId]) -> tuple[set[CommitId], set[CommitId]]:
        """Commits reachable from `tips` without entering `stop`, and the members of `stop` that were met."""
        found: set[CommitId] = set()
        met: set[CommitId] = set()
        waiting = list(tips)
        while waiting:
            id_ = waiting.pop()
            if id_ in stop:
                met.add(id_)
            elif id_ not in found:
                found.add(id_)
                waiting.extend(self._source.objects.commit(id_).parents)
        return found, met


def _signature(store: Path) -> tuple[int, ...] | None:
    """Changes whenever a ref or HEAD moves: each move replaces the listing by rename."""
    try:
        found = (store / "info" / "refs").stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


class _Refresher:
    """Keeps the view of a remote up to date without making anybody wait for a remote that does not answer."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._wanted = threading.Event()
        self._done = threading.Condition()
        self._rounds = 0
        self._last = time.monotonic()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="shardfs-refresh", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Look at the remote if the last look is long ago; waits REMOTE_WAIT_S at most."""
        if time.monotonic() - self._last < REMOTE_EVERY_S:
            return
        with self._done:
            rounds = self._rounds
            self._wanted.set()
            self._done.wait_for(lambda: self._rounds != rounds, REMOTE_WAIT_S)

    def close(self) -> None:
        self._closed = True
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed:
                return
            try:
                self._source.refresh()
            except ShardfsError as error:
                _log.warning("the remote's refs cannot be read, the last known ones are shown: %s", error)
            self._wanted.clear()
            with self._done:
                self._last = time.monotonic()
                self._rounds += 1
                self._done.notify_all()
