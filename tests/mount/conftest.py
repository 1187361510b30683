"""What tests with real mounts share: projects, mounts of them, and a home of their own for daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import shardfs
from shardfs.mount import session
from shardfs.mount.options import MountOptions
from shardfs.mount.records import MountRecord
from shardfs.repository import Repository
from tests.conftest import PRIVATE_FOLDERS

FRESH_S = 1.0  # a change by any process is visible within


ENGINES = ("kernel", "libfuse")
# What a mount can be, and shall behave as: options, and whether its large files are read from plain files.
VARIANTS: dict[str, tuple[dict[str, Any], bool]] = {
    "kernel": ({"engine": "kernel"}, False),
    "libfuse": ({"engine": "libfuse"}, False),
    "safe": ({"engine": "kernel", "safe": True}, False),
    "passthrough": ({"engine": "kernel"}, True),
    "no-passthrough": ({"engine": "kernel", "passthrough": False}, True),
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """What serves the mounts of a module that name no engine: each test runs with both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "AUTO", request.param)
        yield request.param


@dataclass
class Mounted:
    """A mounted project."""

    point: Path
    project: Path
    record: MountRecord

    @property
    def latest(self) -> Path:
        return self.point / "latest"

    @property
    def staging(self) -> Path:
        return self.point / "staging"

    def commit(self, message: str) -> str:
        """Commit staging through the mount; the new id."""
        with (self.point / ".shardfs" / "commit").open("w") as door:
            door.write(message)
        return (self.point / ".shardfs" / "commit").read_text().strip()

    def errors(self) -> str:
        return (self.point / ".shardfs" / "errors").read_text()

    def stats(self) -> dict[str, Any]:
        """Counters of the daemon."""
        found: dict[str, Any] = json.loads((self.point / ".shardfs" / "stats.json").read_text())
        return found

    def make_plain(self, path: Path) -> None:
        """Read a committed file of at least 1 MiB until the daemon has a plain file of it."""
        assert eventually(lambda: _is_plain(path), 20)


@dataclass(frozen=True)
class Variant:
    """One of VARIANTS."""

    name: str
    options: dict[str, Any]
    plain: bool

    @property
    def passes_through(self) -> bool:
        """Whether the kernel reads plain files itself, which takes root."""
        return self.name == "passthrough" and os.geteuid() == 0


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Iterator[Variant]:
    """Each test of a module runs with all variants; mounts that name no engine have that of the variant."""
    options, plain = VARIANTS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "AUTO", options["engine"])
        yield Variant(request.param, options, plain)


@contextmanager
def private_folders(home: Path) -> Iterator[None]:
    """Settings, records and logs below `home`: as the fixture `private_home`, for longer than one test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in PRIVATE_FOLDERS:
            folder = home / name.lower()
            folder.mkdir(mode=0o700, exist_ok=True, parents=True)
            patch.setenv(name, str(folder))
        yield


@contextmanager
def mounting(project: Path, point: Path, home: Path, **options: Any) -> Iterator[Mounted]:
    """Mount a project with a daemon; it must end cleanly."""
    with private_folders(home):
        record = session.mount(point, project, MountOptions(**options))
    try:
        yield Mounted(point, project, record)
    finally:
        with private_folders(home):
            if any(found.mountpoint == record.mountpoint for found in session.list_mounts()):
                session.unmount(point, force=True)
    assert not any(line.split()[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@contextmanager
def stopped(mounted: Mounted) -> Iterator[None]:
    """Nobody answers requests meanwhile. A watchdog lets the daemon go on, or a failing test would hang."""
    watchdog = threading.Timer(20, os.kill, (mounted.record.pid, signal.SIGCONT))
    watchdog.start()
    os.kill(mounted.record.pid, signal.SIGSTOP)
    try:
        yield
        assert watchdog.is_alive(), "a request was sent"
    finally:
        watchdog.cancel()
        os.kill(mounted.record.pid, signal.SIGCONT)


def _is_plain(path: Path) -> bool:
    with suppress(OSError):
        return bool(os.getxattr(path, "user.shardfs.realpath"))
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # ask the daemon again, not the page cache
        file.readall()
    return False


def make_project(project: Path, files: dict[str, bytes], message: str = "initial") -> str:
    """A repository with one commit; the commit's id."""
    with shardfs.init(project) as repo:
        return add_commit(repo, files, message)


def add_commit(repo: Repository, files: dict[str, bytes], message: str) -> str:
    """Write files into the work tree and commit them; the commit's id."""
    assert repo.root is not None
    for name, data in files.items():
        path = repo.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    repo.add([repo.root / name for name in files])
    return repo.commit(message).hex()


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether a condition becomes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def shell(command: str, folder: Path, **environment: str) -> str:
    """Run a shell command that must succeed; its output."""
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where daemons of this module keep their records and logs."""
    return tmp_path_factory.mktemp("daemons")
