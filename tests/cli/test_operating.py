"""Mounts as whoever operates them sees them: alive, stuck, dead; looking at them never hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import schema
from tests.cli.conftest import Shell

pytestmark = pytest.mark.fuse

SCHEMAS = schema.load()


@pytest.fixture(params=["kernel", "libfuse"])
def models(project: Shell, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mount of a repository with one commit, by each engine."""
    project.commit("initial", a__txt="hello\n")
    point = project.folder / "models"
    project("mount", "models", "-q", "--engine", request.param)
    yield point
    project("umount", "--force", "--timeout", "1", point, cwd=project.folder, status=None)


def listed(project: Shell) -> Any:
    """The only mount."""
    result = project("mounts", "--json")
    assert schema.problems(SCHEMAS["mounts"], result.json) == []
    [mount] = result.json
    return mount


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_mount_is_told_with_what_it_takes(project: Shell, models: Path) -> None:
    mount = listed(project)
    assert mount["status"] == "alive"
    assert mount["memory_bytes"] > 1 << 20
    assert mount["uptime_s"] >= 0
    assert mount["engine"] in project("mounts").out
    assert project("mounts", "--check", "models", "--json").json == {"mountpoint": str(models), "answers": True}


def test_a_stuck_daemon_does_not_hang_who_looks(project: Shell, models: Path) -> None:
    pid = listed(project)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert listed(project)["status"] == "not answering"
        assert "no mount of shardfs answers" in project("mounts", "--check", models, status=1).err
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: bool(listed(project)["status"] == "alive"))


def test_a_killed_daemon_is_told(project: Shell, models: Path) -> None:
    os.kill(listed(project)["pid"], signal.SIGKILL)
    until(lambda: bool(listed(project)["status"] == "dead"))
    assert listed(project)["memory_bytes"] is None
    project("mounts", "--check", models, status=1)


def test_a_plain_directory_is_no_healthy_mount(project: Shell) -> None:
    (project.folder / "plain").mkdir()
    answer = project("mounts", "--check", "plain", "--json", status=1)
    assert schema.problems(SCHEMAS["mounts --check"], answer.json) == []
