"""Daemons that may have little: a control group of 112 MiB, 64 descriptors; 100 files are open and read at once."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shardfs import budget
from shardfs.mount import session
from tests.mount.conftest import eventually, make_project, private_folders
from tests.stores import noise

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES, SIZE = 100, 1 << 20
LIMIT = 112 << 20  # what an empty daemon has and all of the plaintext do not fit
# Joins the group and takes the limits before anything is loaded; the daemon inherits both.
PROGRAM = """
import os, resource, sys
point, project, group, descriptors = sys.argv[1:]
if group:
    with open(group + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(descriptors), int(descriptors)))
from shardfs.mount import session
print(session.mount(point, project).pid)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "project"
    make_project(folder, {f"{number:03d}.bin": content(number) for number in range(FILES)})
    return folder


@functools.cache
def content(number: int) -> bytes:
    """Of one of the files; they have nothing in common."""
    return noise(number, SIZE)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own with `LIMIT` bytes."""
    for folder, name in _places():
        made = folder / f"shardfs-test-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            (made / name).write_text(str(LIMIT))
        except OSError:
            made.rmdir()
            continue
        break
    else:
        pytest.skip("no control group with a limit of memory can be made here")
    yield made
    assert eventually(lambda: _removed(made), within_s=10)


def _places() -> Iterator[tuple[Path, str]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield Path("/sys/fs/cgroup/memory") / path.lstrip("/"), "memory.limit_in_bytes"
        elif not controllers:
            yield Path("/sys/fs/cgroup") / path.lstrip("/"), "memory.max"


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


@contextmanager
def limited(project: Path, point: Path, home: Path, group: Path | None, descriptors: int) -> Iterator[int]:
    """Mount with a daemon that may have little; its process id."""
    arguments = [str(point), str(project), str(group or ""), str(descriptors)]
    with private_folders(home):
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True, text=True)
        try:
            yield int(done.stdout)
        finally:
            session.unmount(point, force=True)


def read_all_at_once(point: Path) -> list[int]:
    """Open all files, read each on a thread of its own; the numbers of those that were read well."""
    files = [(point / "latest" / f"{number:03d}.bin").open("rb", buffering=0) for number in range(FILES)]
    good: list[int] = []

    def work(number: int) -> None:
        parts = []
        while part := files[number].read(256 << 10):
            parts.append(part)
        if b"".join(parts) == content(number):
            good.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(FILES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    return sorted(good)


def test_a_small_control_group_is_enough(project: Path, tmp_path: Path, group: Path) -> None:
    with limited(project, tmp_path / "models", tmp_path / "home", group, 1024) as pid:
        assert str(pid) in (group / "cgroup.procs").read_text().split()
        assert read_all_at_once(tmp_path / "models") == list(range(FILES))


def test_few_descriptors_are_enough(project: Path, tmp_path: Path) -> None:
    with limited(project, tmp_path / "models", tmp_path / "home", None, 64) as pid:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert soft == 64
        assert read_all_at_once(tmp_path / "models") == list(range(FILES))


def test_the_budget_of_a_process_is_that_of_its_group(group: Path) -> None:
    program = (
        f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); from shardfs import budget; print(budget.default())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) == max(budget.LEAST, LIMIT // 4)
