"""Refs: files that move by compare-and-swap, each move in a reflog. Spec: docs/design/format/ref.md."""

from __future__ import annotations

import builtins
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shardfs.errors import (
    AlreadyExistsError,
    FormatError,
    MalformedError,
    RefChangedError,
    RefCorruptedError,
    StoreError,
)
from shardfs.formats import ref as format_
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import DEFAULT_BRANCH, Head, LogLine
from shardfs.store import atomic
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock

_log = logging.getLogger(__name__)


class RefStore:
    """Refs of one store. Reads take no lock; moves hold the writer lock. Safe to share between threads."""

    def __init__(self, layout: Layout, lock: WriterLock) -> None:
        self._layout = layout
        self._lock = lock

    def get(self, name: str) -> CommitId | None:
        """The commit that a ref names, or None when there is no such ref.

        Raises:
            MalformedError: not a ref name. RefCorruptedError: the file holds something else than an id, or is gone
                although nobody deleted the ref.
        """
        data = self._read(format_.check_ref_name(name))
        if data is None:
            if not self._is_lost(name):
                return None
            data = self._read(name)  # the log is written after the ref
            if data is None:
                msg = f"{name} is missing; run `shardfs doctor --fix` to restore it from its log"
                raise RefCorruptedError(msg)
        try:
            return format_.ref_from_bytes(data)
        except MalformedError as error:
            msg = f"{name} is damaged ({error}); run `shardfs doctor --fix` to restore it from its log"
            raise RefCorruptedError(msg) from error

    def list(self, prefix: str = "refs/") -> dict[str, CommitId]:
        """Refs whose full names start with `prefix`, sorted by name.

        Raises:
            RefCorruptedError: one of them is damaged. StoreError: the store is gone.
        """
        found: dict[str, CommitId] = {}
        for name in self._names(prefix):
            commit = self.get(name)
            if commit is not None:
                found[name] = commit
        return found

    def names(self, prefix: str = "refs/") -> builtins.list[str]:
        """Full names of refs, also of damaged ones, sorted."""
        return list(self._names(prefix))

    def head(self) -> Head:
        """What HEAD names.

        Raises:
            RefCorruptedError: HEAD is missing or damaged.
        """
        try:
            return Head.from_bytes(self._layout.head.read_bytes())
        except FileNotFoundError:
            problem = "is missing"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except FormatError as error:
            problem = f"is damaged ({error})"
        msg = f"{self._layout.head} {problem}; run `shardfs doctor --fix`"
        raise RefCorruptedError(msg)

    def head_commit(self) -> CommitId | None:
        """The commit at HEAD, or None on a branch without commits."""
        head = self.head()
        return head.commit if head.branch is None else self.get(head.branch)

    def set_head(self, head: Head) -> None:
        """Point HEAD somewhere else."""
        with self._lock.hold("ref"):
            atomic.write_bytes(self._layout.head, head.to_bytes(), self._layout.tmp)
            with _logged("HEAD moved, but the listing of refs is behind"):
                self._write_listing()

    def move(
        self, name: str, old: CommitId | None, new: CommitId | None, *, author: str = "", message: str = ""
    ) -> None:
        """Move a ref from `old` to `new`; None stands for "does not exist".

        A kill or a full disk between the ref and its log line loses only the log line; one before the listing is
        rewritten is repaired by the next move or by `shardfs doctor --fix`.

        Raises:
            RefChangedError: the ref is not at `old`; `current` says where it is.
            AlreadyExistsError: the name is a directory of other refs or below another ref.
            LockedError, OutOfSpaceError, ReadOnlyError, StoreError: the ref is where it was.
        """
        format_.check_ref_name(name)
        with self._lock.hold("ref"):
            current = self.get(name)
            if current != old:
                where = current.hex()[:12] if current else "gone"
                msg = f"{name} is now {where}, expected {old.hex()[:12] if old else 'none'}"
                raise RefChangedError(msg, current)
            if new == current:
                return
            line = LogLine(old, new, time.time_ns() // 1000, author, message)
            problem = f"{name} moved, but its log or the listing of refs is behind"
            if new is None:
                with _logged(problem):  # first: a ref that is gone and whose log does not say so was lost
                    self._append_log(name, line)
                self._delete(name)
            else:
                self._check_room(name)
                atomic.write_bytes(self._layout.ref(name), format_.ref_to_bytes(new), self._layout.tmp)
            # The ref has moved, and whoever reads an error here would think that it has not.
            with _logged(problem):
                if new is not None:
                    self._append_log(name, line)
                self._write_listing()

    def log(self, name: str) -> builtins.list[LogLine]:
        """Moves of a ref, newest first; torn lines are left out.

        Raises:
            MalformedError: not a ref name. StoreError: the log cannot be read.
        """
        try:
            data = self._layout.log(format_.check_ref_name(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            msg = f"the log of {name} cannot be read: {error.strerror}"
            raise StoreError(msg) from error
        lines = []
        for line in reversed(data.splitlines()):
            with suppress(MalformedError):
                lines.append(LogLine.from_bytes(line))
        return lines

    def restore(self, name: str, is_known: Callable[[CommitId], bool] = lambda _: True) -> CommitId | None:
        """Put a damaged ref back to the last commit in its log that `is_known`; None when the log has none."""
        with self._lock.hold("doctor"):
            commit = next((line.new for line in self.log(name) if line.new and is_known(line.new)), None)
            if commit is not None:
                atomic.write_bytes(self._layout.ref(name), format_.ref_to_bytes(commit), self._layout.tmp)
                self._write_listing()
            return commit

    def restore_head(self) -> Head:
        """Make a damaged HEAD name the default branch, or the first one there is; returns the new value."""
        branches = self.names(format_.BRANCHES)
        default = format_.BRANCHES + DEFAULT_BRANCH
        head = Head(default if default in branches or not branches else branches[0])
        self.set_head(head)
        return head

    def write_listing(self) -> None:
        """Write `info/refs` again."""
        with self._lock.hold("ref"):
            self._write_listing()

    def _write_listing(self) -> None:
        refs: dict[str, CommitId] = {}
        for prefix in (format_.BRANCHES, format_.TAGS):
            for name in self._names(prefix):
                with suppress(RefCorruptedError):
                    if commit := self.get(name):
                        refs[name] = commit
        try:
            branch = self.head().branch
        except RefCorruptedError:
            branch = None
        data = format_.refs_to_bytes(branch, refs)
        atomic.write_bytes(self._layout.info_refs, data, self._layout.tmp)

    def _read(self, name: str) -> bytes | None:
        try:
            return self._layout.ref(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            msg = f"{name} cannot be read: {error.strerror}"
            raise StoreError(msg) from error

    def _is_lost(self, name: str) -> bool:
        """Whether the log of a ref that is not there does not end with its deletion."""
        with suppress(StoreError):  # a log that cannot be read says nothing
            lines = self.log(name)
            return bool(lines) and lines[0].new is not None
        return False

    def _names(self, prefix: str) -> Iterator[str]:
        found: list[str] = []
        if not self._layout.root.is_dir():  # not a store without refs, but no store
            msg = f"{self._layout.root} is gone"
            raise StoreError(msg)
        # os.walk passes over directories that a writer removes meanwhile; Path.rglob stops with an error.
        for folder, _, files in os.walk(self._layout.root / "refs"):
            base = Path(folder).relative_to(self._layout.root).as_posix()
            found += [f"{base}/{file}" for file in files]
        yield from sorted(name for name in found if name.startswith(prefix) and format_.is_ref_name(name))

    def _check_room(self, name: str) -> None:
        parts = Path(name).parts
        for depth in range(3, len(parts)):
            parent = "/".join(parts[:depth])
            if self._layout.ref(parent).is_file():
                msg = f"cannot create {name}: {parent} exists"
                raise AlreadyExistsError(msg)
        path = self._layout.ref(name)
        if path.is_dir():
            if any(not p.is_dir() for p in path.rglob("*")):
                msg = f"cannot create {name}: there are refs below it"
                raise AlreadyExistsError(msg)
            with atomic.os_errors(f"cannot create {name}"):
                for folder in sorted(path.rglob("*"), reverse=True):
                    folder.rmdir()
                path.rmdir()

    def _delete(self, name: str) -> None:
        path = self._layout.ref(name)
        with atomic.os_errors(f"cannot delete {name}"):
            path.unlink(missing_ok=True)
            atomic.sync_dir(path.parent)

    def _append_log(self, name: str, line: LogLine) -> None:
        path = self._layout.log(name)
        with atomic.os_errors(f"cannot write the log of {name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                end = file.tell()
                torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
                file.write(b"\n" * torn + line.to_bytes())


@contextmanager
def _logged(problem: str) -> Iterator[None]:
    try:
        yield
    except (StoreError, FileNotFoundError) as error:
        _log.warning("%s: %s", problem, error)
