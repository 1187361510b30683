"""A lazy clone behind a remote that fails: late or an error, but never other bytes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import shardfs
from shardfs.errors import OutOfSpaceError, ShardfsError
from tests.faults.proxy import FaultProxy
from tests.soak.served import Served
from tests.soak.staged import leaf_at, told
from tests.soak.tree import Snapshot

# Those that no reader can take for something else.
FAULTS = (
    "refuse", "reset", "reset-in-head", "reset-in-body", "cut", "late", "black-hole", "stall", "drip", "flip",
    "garbage", "two-heads", "wrong-range", "whole", "429", "500", "503", "redirect-loop",
)  # fmt: skip
PATIENCE_S = 60.0  # until a remote that answers again is asked again, and has answered


@dataclass(eq=False)
class Lazy:
    """The clone and its mount.

    Attributes:
        known: commits that the clone has fetched.
        errors: reads that failed because the remote did.
        flaky: share of the exchanges that fail.
    """

    served: Served
    proxy: FaultProxy
    project: Path
    cache: Path
    chance: random.Random
    known: list[tuple[str, Snapshot]] = field(default_factory=list)
    errors: int = 0
    flaky: float = 0.0

    def fetch(self, commits: list[tuple[str, Snapshot]]) -> None:
        """Get to know new commits; a remote that fails is an error and nothing else."""
        with shardfs.open(self.project) as repo:
            try:
                complete = not repo.fetch().conflicts
            except ShardfsError:
                complete = False
        if not complete:
            assert self.flaky, "the remote works"
            return
        self.known = commits

    def read(self) -> None:
        """Read a file of a commit."""
        if not self.known:
            return
        id_, snapshot = self.chance.choice(self.known)
        path = self.chance.choice(sorted(snapshot)) if snapshot else ()
        if not path:
            return
        place = (self.served.point / "commits" / id_).joinpath(*path)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                found = leaf_at(place)
                break
            except OSError as error:
                if error.errno != errno.EIO or (not self.flaky and time.monotonic() > deadline):
                    raise
                self.errors += 1
                if self.flaky:
                    return
                time.sleep(0.2)
        assert found == snapshot[path], (id_, path, told(found), told(snapshot[path]))

    def warm(self) -> None:
        """Make plain files of a version, as far as the remote lets us."""
        id_, _ = self.chance.choice(self.known)
        with shardfs.open(self.project) as repo:
            try:
                repo.warm(id_)
            except OutOfSpaceError:
                pass  # the cache was just spoiled
            except ShardfsError:
                assert self.flaky, "the remote works"

    def weather(self) -> None:
        """The remote gets worse or better."""
        self.change(self.chance.choice((0.0, 0.0, 0.1, 0.5)))

    def change(self, flaky: float) -> None:
        """Let this share of the exchanges fail from now on."""
        self.flaky = flaky
        self.proxy.change(self.chance.randrange(1 << 32), flaky, FAULTS)

    def spoil(self) -> None:
        """Something happens to the cache: it goes, a file of it goes, is cut or gets other bytes."""
        files = sorted(p for p in self.cache.rglob("*") if p.is_file()) if self.cache.exists() else []
        action = self.chance.randrange(5)
        if action == 0 or not files:
            shutil.rmtree(self.cache, ignore_errors=True)
            return
        victim = self.chance.choice(files)
        if action == 1:
            victim.unlink(missing_ok=True)
        elif action == 2 and victim.suffix != ".sqlite-shm":  # cut, what is mapped is a SIGBUS
            os.truncate(victim, self.chance.randrange(victim.stat().st_size + 1))
        elif victim.stat().st_size:
            fd = os.open(victim, os.O_WRONLY)
            os.pwrite(fd, self.chance.randbytes(64), self.chance.randrange(victim.stat().st_size))
            os.close(fd)
