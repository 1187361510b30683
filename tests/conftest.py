"""What all tests share: a private home, real checkpoints, and the rules for tests that mount."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from shardfs import mountinfo
from tests import swift
from tests.swift import Swift

FUSE_DEVICE = Path("/dev/fuse")
CHECKPOINTS = Path(__file__).with_name("checkpoints.py")
PRIVATE_FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")

# Deadlines per example would measure how busy the machine is, not the code.
_patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **_patient)  # type: ignore[arg-type]
settings.register_profile("ci", max_examples=100, print_blob=True, **_patient)  # type: ignore[arg-type]
settings.register_profile("nightly", max_examples=2000, **_patient)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


# Shells start what runs in the background with SIGINT ignored, which programs pass on to those that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A missing device is the one reason not to run a test that mounts."""
    if FUSE_DEVICE.exists():
        return
    for item in items:
        if item.get_closest_marker("fuse"):
            item.add_marker(pytest.mark.skip(reason=f"{FUSE_DEVICE} does not exist"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, a test that mounts may not be skipped where the device exists."""
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("CI")
        and item.get_closest_marker("fuse")
        and FUSE_DEVICE.exists()
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {FUSE_DEVICE} exists: {report.longrepr}"
    return report


def mounts_below(folder: Path) -> list[Path]:
    """Mount points below `folder`, deepest first; asks the kernel's table, never the mounts."""
    rows = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    points = [Path(row.encode().decode("unicode_escape")) for row in rows]
    return sorted((p for p in points if p.is_relative_to(folder)), reverse=True)


@pytest.fixture(scope="session", autouse=True)
def _no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Unmount what failing tests left behind before pytest deletes its folders through it."""
    yield
    left = mounts_below(tmp_path_factory.getbasetemp())
    for point in left:
        subprocess.run(["fusermount3", "-uz", point], check=False)
    assert not left, f"tests left mounts behind: {left}"


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test: no cache, setting or git identity of the machine's user."""
    home = tmp_path_factory.mktemp("home")
    for name in PRIVATE_FOLDERS:
        folder = home / name.lower()
        folder.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(folder))
    for name in [name for name in os.environ if name.startswith(("SHARDFS_", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A Tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
    return home


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> list[Path]:
    """Folders of three successive checkpoints of a really fine-tuned MiniLM-L6, oldest first.

    Each is a complete model folder with the same weights as `model.safetensors` and `model.pt` (91 MB
    each). All test workers share one copy: read it, never write to it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "minilm"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            # A process of its own: torch, transformers and their threads stay out of the tests.
            unfinished = shared.with_suffix(".tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run([sys.executable, CHECKPOINTS, unfinished], check=True, stdout=subprocess.DEVNULL)
            unfinished.rename(shared)
    return sorted(shared.iterdir())


@pytest.fixture(scope="session")
def swift_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Swift]:
    """A real object store that speaks S3, shared by all workers: take buckets and prefixes of your own."""
    if (reason := swift.why_not()) is not None:
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    with swift.shared((base if worker_id == "master" else base.parent) / "swift") as store:
        yield store


@pytest.fixture
def s3(swift_store: Swift, monkeypatch: pytest.MonkeyPatch) -> Swift:
    """The object store, in the environment of this test and of the programs that it starts."""
    swift_store.use(monkeypatch)
    return swift_store


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A mount point; whatever is mounted there at the end is taken away."""
    found = tmp_path / "models"
    yield found
    if mountinfo.top_row(found) is not None:
        subprocess.run(["fusermount3", "-uz", found], check=False)
