"""Thousands of random operations on real mounts, compared with a model: two branches, a lazy clone, kills, gc."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import OutOfSpaceError, ShardfsError
from shardfs.repository import Repository
from tests.faults.proxy import FaultProxy
from tests.mount.conftest import FRESH_S, eventually, private_folders
from tests.serving import serving
from tests.soak.lazy import Lazy
from tests.soak.served import AT_REST, Served, Usage
from tests.soak.staged import LATE_S, Staged
from tests.soak.tree import Leaf, Snapshot
from tests.soak.watchdog import Watchdog

BRANCHES = ("main", "exp/two")
SETTINGS = {
    "SHARDFS_MEMORY_BUDGET": "16MiB",  # full early, so that what grows later is a leak
    "SHARDFS_CACHE_SIZE": "24MiB",
    "SHARDFS_CACHE_MIN_FREE": "0",
    "SHARDFS_DEADLINE": "3",
    "PYTHONFAULTHANDLER": "1",
}
# Operations, and how often each happens in a thousand.
STAGING = {
    "write_file": 150, "rewrite_file": 90, "write_inside": 80, "append": 60, "cut": 50, "map": 50, "use_held": 80,
    "mkdir": 40, "rmdir": 15, "unlink": 45, "remove_all": 4, "symlink": 20, "rename": 80, "chmod": 30,
}  # fmt: skip
OTHERS = {
    "read_commit": 80, "read_lazy": 60, "commit": 12, "commit_by_command": 3, "add": 8, "reset": 2, "push": 3, "tag": 3,
    "branch": 4, "look": 10, "fetch": 6, "weather": 4, "spoil": 5, "warm": 3, "evict": 2,
    "gc": 2, "optimize": 1, "kill": 1, "again": 1,
}  # fmt: skip
# What a daemon may hold more at the end than after a tenth. The two heaps of its allocator keep 64 MiB of freed memory
# each. On a busy machine requests wait, and up to 64 threads serve them, each with connections to three databases.
ALLOWED = Usage(memory=128 << 20, descriptors=256, threads=64)
CHECK_EVERY = 50  # operations
LONG = 2000  # operations, after which it is worth to wait until the daemons rest
REST_S = 60.0  # threads of a burst end after half of that
MEASURES = 100


@dataclass
class Report:
    """What a run found.

    Attributes:
        done: how often each operation ran.
        growth: what each daemon that lived all the time holds more at the end.
        rested: what each daemon holds more after a rest than when it began; of long runs only.
        complaints: lines of the daemons' logs that nobody should see.
    """

    done: Counter[str] = field(default_factory=Counter)
    growth: dict[str, Usage] = field(default_factory=dict)
    rested: dict[str, Usage] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    commits: int = 0
    bytes_checked: int = 0
    remote_errors: int = 0
    seconds: float = 0.0

    def wrong(self) -> list[str]:
        """What is wrong although every byte was right: leaks, and mistakes in the logs."""
        leaks = [
            f"{name} holds {value} more {what} {when}"
            for usages, most, when in ((self.growth, ALLOWED, "at the end"), (self.rested, AT_REST, "after a rest"))
            for name, usage in usages.items()
            for what, value, allowed in zip(Usage._fields, usage, most, strict=True)
            if value > allowed
        ]
        return leaks + self.complaints


class Soak:
    """The repository, its mounts, and what happens to them."""

    def __init__(self, folder: Path, seed: int, stack: ExitStack) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.project = folder / "project"
        self.report = Report()
        self.operations = stack.enter_context((folder / "operations.log").open("w"))
        self.tags: dict[str, str] = {}
        self.extra: dict[str, str] = {}  # other branches
        self.current = BRANCHES[0]
        with shardfs.init(self.project) as repo:
            (self.project / "first").write_bytes(b"first")
            repo.add([self.project / "first"])
            first = repo.commit("first").hex()
            repo.create_branch(BRANCHES[1])
        snapshot: Snapshot = {("first",): Leaf("f", b"first")}
        self.staged = [
            Staged(Served(folder / f"mount {n}", self.project, branch), self.chance, self._log)
            for n, branch in enumerate(BRANCHES)
        ]
        for staged in self.staged:
            staged.commits.append((first, snapshot))
            staged.tree.load(snapshot)
        (folder / "served").mkdir()
        (folder / "served" / "models").symlink_to(self.project / ".shardfs")
        server = stack.enter_context(serving(folder / "served", "read-only"))
        proxy = FaultProxy(server.url)
        stack.callback(proxy.close)
        shardfs.clone(f"{proxy.url}/models", folder / "lazy").close()
        shardfs.clone(str(self.project / ".shardfs"), folder / "pusher", full=True).close()
        cache = Path(os.environ["XDG_CACHE_HOME"])
        lazy = Served(folder / "mount lazy", folder / "lazy", BRANCHES[0])
        self.lazy = Lazy(lazy, proxy, folder / "lazy", cache, self.chance, [(first, snapshot)])
        self.served = [*(staged.served for staged in self.staged), lazy]
        self.mortal = self.chance.choice(self.served)  # the others live long enough to be measured
        self.watchdog = Watchdog(self._abort)
        stack.callback(self.watchdog.close)
        for served in self.served:
            served.begin()
            stack.callback(self._end, served)

    def run(self, count: int) -> Report:
        """Do `count` operations and check everything."""
        begin = time.monotonic()
        names, weights = list(STAGING | OTHERS), list((STAGING | OTHERS).values())
        with self._readers():
            for number in range(count):
                name = self.chance.choices(names, weights)[0]
                self._log(f"{number} {name}")
                with self.watchdog.watch(f"operation {number}, {name}"):
                    try:
                        self._do(name)
                        if number % CHECK_EVERY == 0:
                            self.chance.choice(self.staged).check()
                    except (AssertionError, OSError, ShardfsError) as error:
                        error.add_note(f"in operation {number}, {name}\n{self._causes()}")
                        raise
                self.report.done[name] += 1
                if number % max(1, count // MEASURES) == 0:
                    for served in self.served:
                        served.measure()
        for served in self.served:
            growth = served.growth()
            if growth is not None and served is not self.mortal:
                self.report.growth[served.point.name] = growth
        self._check_everything()
        if count >= LONG:
            self.report.rested = {served.point.name: served.rest(REST_S) for served in self.served}
        self.report.complaints = self._complaints()
        self.report.seconds = time.monotonic() - begin
        return self.report

    def _log(self, line: str) -> None:
        """What happened, in a file beside the mounts, for who looks for the cause of a difference."""
        print(line.encode("utf-8", "backslashreplace").decode(), file=self.operations)

    def _do(self, name: str) -> None:
        if name in STAGING:
            getattr(self.chance.choice(self.staged), name)()
        else:
            getattr(self, name)()

    # Readers in the background

    @contextmanager
    def _readers(self) -> Iterator[None]:
        """Somebody reads commits all the time."""
        stop, wrong = threading.Event(), []

        def read(staged: Staged, chance: random.Random) -> None:
            while not stop.wait(0.02):
                served = staged.served
                record = served.record
                try:
                    self._read_some(staged, chance)
                except BaseException as error:  # noqa: BLE001
                    if served.alive and served.record is record:
                        wrong.append(error)
                        return
                    time.sleep(0.2)

        threads = [threading.Thread(target=read, args=(s, random.Random(n))) for n, s in enumerate(self.staged)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if wrong:
            raise wrong[0]

    def _read_some(self, staged: Staged, chance: random.Random) -> None:
        """Read a part of a file of a commit, from the daemon or from the kernel's memory."""
        id_, snapshot = chance.choice(staged.commits)
        files = [path for path, leaf in snapshot.items() if leaf.kind in "fx"]
        if not files:
            return
        path = chance.choice(files)
        data = snapshot[path].data
        place = (staged.served.point / "commits" / id_).joinpath(*path)
        fd = os.open(place, os.O_RDONLY)
        try:
            if chance.random() < 0.5:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            offset, size = chance.randrange(len(data) + 1), chance.choice((100, 5000, 300_000))
            found = os.pread(fd, size, offset)
        finally:
            os.close(fd)
        assert found == data[offset : offset + size], (staged.served.branch, id_, path, offset, size, len(found))
        self.report.bytes_checked += len(found)

    def read_commit(self) -> None:
        self._read_some(self.chance.choice(self.staged), self.chance)

    def read_lazy(self) -> None:
        self.lazy.read()

    # Commits and branches

    def commit(self) -> None:
        """A program writes a message into the mount."""
        staged = self.chance.choice(self.staged)
        door = staged.served.point / ".shardfs" / "commit"

        def close() -> None:
            door.write_text(f"version {len(staged.commits)}")

        self._committed(staged, close, lambda: door.read_text().strip())

    def commit_by_command(self) -> None:
        """Somebody uses the command line."""
        staged = self.chance.choice(self.staged)
        with shardfs.open(self.project) as repo:
            self._switch(repo, staged)
        said = ""

        def run() -> None:
            nonlocal said
            command = [sys.executable, "-m", "shardfs_cli", "commit", "-m", f"version {len(staged.commits)}"]
            done = subprocess.run(command, cwd=self.project, capture_output=True, text=True, check=False)
            said = done.stdout + done.stderr
            assert "Traceback" not in said, said
            if done.returncode:
                assert "nothing to commit" in said, said
                raise OSError(errno.ENODATA, said)

        def tip() -> str:
            with shardfs.open(self.project) as repo:
                found = repo.tip(staged.served.branch)
            assert found is not None
            return found.hex()

        self._committed(staged, run, tip)

    def _committed(self, staged: Staged, commit: Callable[[], object], tip: Callable[[], str]) -> None:
        snapshot = staged.tree.committable()

        def model() -> None:
            if snapshot == staged.tip:
                raise OSError(errno.ENODATA, "nothing to commit")

        if staged.both(model, commit):
            self._moved(staged, tip(), snapshot)

    def _moved(self, staged: Staged, id_: str, snapshot: Snapshot) -> None:
        """A branch has a new commit."""
        staged.commits.append((id_, snapshot))
        latest = staged.served.point / "latest"
        assert eventually(lambda: latest.readlink().name == id_, LATE_S), (latest.readlink(), id_)
        staged.check_commit(id_, snapshot)
        staged.check()
        self.report.commits += 1

    def _switch(self, repo: Repository, staged: Staged) -> None:
        """Make a branch current. What earlier commands left in the work tree is in nobody's way."""
        if self.current != staged.served.branch:
            for path in self.project.iterdir():
                if path.is_dir() and not path.is_symlink() and path.name != ".shardfs":
                    shutil.rmtree(path)
                elif path.name != ".shardfs":
                    path.unlink()
            repo.switch(staged.served.branch, force=True)
            self.current = staged.served.branch

    def _changed_elsewhere(self, staged: Staged) -> None:
        """Another process changed the staging area: the kernel may believe what it knows for a moment."""
        time.sleep(FRESH_S)
        staged.check()

    def add(self) -> None:
        """`shardfs add` puts a file of the work tree into the staging area that the mount shows."""
        staged, name = self.chance.choice(self.staged), f"added {self.chance.randrange(4)}"
        data = self.chance.randbytes(self.chance.randrange(50_000))
        with shardfs.open(self.project) as repo:
            self._switch(repo, staged)
            place = self.project / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            place.write_bytes(data)
            repo.add([self.project / name])
        staged.tree.put((name,), Leaf("f", data))
        self._changed_elsewhere(staged)

    def reset(self) -> None:
        """`shardfs reset` takes all changes back."""
        staged = self.chance.choice(self.staged)
        for held in list(staged.held):
            staged.let_go(held)
        with shardfs.open(self.project) as repo:
            self._switch(repo, staged)
            repo.reset()
        staged.tree.load(staged.tip)
        self._changed_elsewhere(staged)

    def push(self) -> None:
        """Somebody else pushes a commit; staging follows with its changes kept."""
        staged = self.staged[0]
        name, data = f"from elsewhere {self.chance.randrange(20)}", self.chance.randbytes(20_000)
        with shardfs.open(self.folder / "pusher") as repo:
            repo.pull()
            file = self.folder / "pusher" / "pushed" / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            repo.reset()
            repo.add([file])
            id_ = repo.commit("pushed").hex()
            repo.push()
        pushed = {("pushed",): Leaf("d"), ("pushed", name): Leaf("f", data)}
        for path, leaf in pushed.items():
            staged.tree.put(path, leaf)
        self._moved(staged, id_, staged.tip | pushed)
        self._changed_elsewhere(staged)

    def tag(self) -> None:
        """Somebody names a version."""
        id_, _ = self.chance.choice(self.chance.choice(self.staged).commits)
        name = f"v{self.chance.randrange(20)}"
        with shardfs.open(self.project) as repo:
            repo.create_tag(name, id_, force=True)
        self.tags[name] = id_

    def branch(self) -> None:
        """Somebody makes a branch, or deletes one."""
        name = f"old/{self.chance.randrange(5)}"
        with shardfs.open(self.project) as repo:
            if self.extra.pop(name, None):
                repo.delete_branch(name, force=True)
                return
            self.extra[name] = self.chance.choice(self.staged[0].commits)[0]
            repo.create_branch(name, self.extra[name])

    def look(self) -> None:
        """List what a mount shows of history."""
        staged = self.chance.choice(self.staged)
        point = staged.served.point
        ids = {id_ for s in self.staged for id_, _ in s.commits}
        tips = {s.served.branch: s.commits[-1][0] for s in self.staged} | self.extra
        assert eventually(lambda: set(os.listdir(point / "commits")) == ids, LATE_S)
        assert eventually(lambda: _links(point / "tags") == self.tags, LATE_S), (_links(point / "tags"), self.tags)
        assert eventually(lambda: _links(point / "branches") == tips, LATE_S), (_links(point / "branches"), tips)
        versions = sorted(os.listdir(point / "versions"))
        assert [(point / "versions" / v).readlink().name for v in versions] == [id_ for id_, _ in staged.commits]

    # Remotes and caches

    def fetch(self) -> None:
        self.lazy.fetch(list(self.staged[0].commits))

    def weather(self) -> None:
        self.lazy.weather()

    def spoil(self) -> None:
        self.lazy.spoil()

    def warm(self) -> None:
        """Somebody wants plain files of a version, here and in the lazy clone."""
        staged = self.chance.choice(self.staged)
        with shardfs.open(self.project) as repo, suppress(OutOfSpaceError):  # the cache was just spoiled
            repo.warm(self.chance.choice(staged.commits)[0])
        self.lazy.warm()

    def evict(self) -> None:
        """All repositories share a cache."""
        with shardfs.open(self.project) as repo:
            repo.evict()

    # Maintenance

    def gc(self) -> None:
        with shardfs.open(self.project) as repo:
            assert not repo.gc(grace_s=0).problems

    def optimize(self) -> None:
        with shardfs.open(self.project) as repo:
            assert not repo.optimize(grace_s=0).problems

    # Daemons

    def kill(self) -> None:
        """The daemon dies at any moment; the next one goes on."""
        self.mortal.kill()
        self._restart()

    def again(self) -> None:
        """A mount ends and begins."""
        for staged in self.staged:
            if staged.served is self.mortal:
                for held in list(staged.held):
                    staged.let_go(held)
        self.mortal.end()
        self._restart()

    def _restart(self) -> None:
        for staged in self.staged:
            if staged.served is self.mortal:
                staged.after_kill()
        self.mortal.begin()
        for staged in self.staged:
            if staged.served is self.mortal:
                staged.see_what_was_closed()
                staged.check()

    def _abort(self) -> None:
        for served in self.served:
            if served.alive:
                served.abort()

    def _end(self, served: Served) -> None:
        if served.alive:
            served.end()

    # The end

    def _check_everything(self) -> None:
        """Read every version again, as somebody who comes fresh, and ask the store."""
        self.lazy.change(0.0)
        with self.watchdog.watch("the last look"):
            for staged in self.staged:
                for held in list(staged.held):
                    staged.let_go(held)
                staged.check()
                self.look()
        for staged in self.staged:
            with self.watchdog.watch("reading a mount again"):
                staged.served.end()
                staged.served.begin()
                staged.check()
            for id_, snapshot in staged.commits:
                with self.watchdog.watch("reading a version again"):
                    staged.check_commit(id_, snapshot)
        with self.watchdog.watch("fetching the last"):
            self.lazy.fetch(list(self.staged[0].commits))
        for _ in range(100):
            with self.watchdog.watch("reading the lazy clone again"):
                self.lazy.read()
        self.report.remote_errors = self.lazy.errors
        with self.watchdog.watch("verify"), shardfs.open(self.project) as repo:
            assert not repo.verify().problems

    def _causes(self) -> str:
        """What the daemons say of the errors that programs saw."""
        said = []
        for served in self.served:
            with suppress(OSError):
                said.append(f"{served.point.name}: {(served.point / '.shardfs' / 'errors').read_text()[-2000:]}")
        return "\n".join(said)

    def _complaints(self) -> list[str]:
        """Lines of the logs that speak of a mistake in the program. That a remote fails is no mistake."""
        found: list[str] = []
        for served in self.served:
            words = ("Traceback", "Fatal") if served is self.lazy.served else ("Traceback", "Fatal", " ERROR ")
            assert served.record.log is not None
            for log in served.record.log.parent.glob(f"{served.record.log.name}*"):
                found += [line for line in log.read_text().splitlines() if any(word in line for word in words)]
        return found


def _links(folder: Path) -> dict[str, str]:
    """Names of links below a directory, with the last name of their targets."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            if path.is_symlink():
                found[str(path.relative_to(folder))] = path.readlink().name
    return found


def soak(folder: Path, seed: int, count: int) -> Report:
    """Run in an empty folder. The report; raises what was wrong."""
    with private_folders(folder / "home"), pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        return Soak(folder, seed, stack).run(count)
