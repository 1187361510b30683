"""Mounts as whoever operates them sees them: alive, stuck, dead; looking at them never hangs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardfs_cli.mount_helper import translated
from tests import prometheus
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


@pytest.fixture
def point(project: Shell) -> Iterator[Path]:
    """A repository with one commit, and where to mount it; what is mounted there at the end is taken away."""
    project.commit("initial", a__txt="hello\n")
    found = project.folder / "mnt models"
    yield found
    project("umount", "--force", found, cwd=project.folder, status=None)


# Metrics


def page(address: str, path: str) -> tuple[int, str]:
    """A page of the metrics server."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("engine", ["kernel", "libfuse"])
def test_metrics_are_scraped_and_health_is_told(project: Shell, point: Path, engine: str) -> None:
    project("mount", point, "--metrics", "0", "--engine", engine)
    address = listed(project)["metrics"]
    assert (point / "latest/a.txt").read_text() == "hello\n"
    found = prometheus.parse(page(address, "/metrics")[1])
    [info] = found["shardfs_mount_info"].samples
    assert ("mountpoint", str(point)) in info
    assert ("engine", engine) in info
    assert found["shardfs_mount_requests_total"].samples[(("operation", "open"),)] >= 1
    assert found["shardfs_mount_read_bytes_total"].samples[()] >= 6
    assert found["shardfs_process_descriptors"].samples[()] > 3
    assert "shardfs_reader_remote_bytes_total" in found
    assert page(address, "/healthz") == (200, "ok\n")


def test_an_address_that_is_taken_is_refused_and_nothing_stays(project: Shell, point: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert "cannot serve metrics at" in project("mount", point, "--metrics", address, status=1).err
    assert not point.exists()
    assert "not an address" in project("mount", point, "--metrics", "soon", status=2).err


# Logs


def test_log_of_a_daemon_where_and_how_it_is_wanted(project: Shell, point: Path) -> None:
    mounted = project("mount", point, "--log-file", "logs/m.log", "--log-format", "json", "--json").json
    log = project.folder / "logs/m.log"
    assert mounted["log"] == str(log)
    project("umount", point)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["mountpoint"] for line in lines} == {str(point)}
    assert any("mounted at" in line["message"] for line in lines)
    assert any(line["level"] == "info" and "ended" in line["message"] for line in lines)


def test_log_of_a_mount_in_front_goes_to_standard_error(project: Shell, point: Path) -> None:
    running = project.start("mount", "-f", point, "--log-format", "json")
    until(lambda: (point / "latest").is_symlink())
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "info" in {json.loads(line)["level"] for line in said.decode().splitlines()}


# Under systemd and from fstab


def test_systemd_hears_of_begin_and_end(project: Shell, point: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000000"}
        running = project.start("mount", "-f", point, env=environment)
        ready = manager.recv(1000).decode()
        assert ready.splitlines()[0] == "READY=1"
        assert str(point) in ready
        assert (point / "latest").is_symlink()
        assert manager.recv(1000) == b"WATCHDOG=1"
        running.send_signal(signal.SIGTERM)
        said = manager.recv(1000)
        while said == b"WATCHDOG=1":
            said = manager.recv(1000)
        assert said.startswith(b"STOPPING=1")
        running.communicate(timeout=60)
    assert running.returncode == 0


MOUNT_8 = Path("/sbin/mount.fuse")
FROM_FSTAB = """
mount --bind "$1" /sbin/mount.fuse  # what mount(8) calls for fuse.shardfs, in this namespace alone
mount -a -T "$2"
cat "$3/latest/a.txt"
mount -a -T "$2"  # finds that it is mounted
grep -c " fuse.shardfs ro," /proc/self/mounts
umount "$3"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts from fstab")
@pytest.mark.skipif(not MOUNT_8.exists(), reason="fuse3 is not installed")
def test_mount_8_takes_the_printed_line_of_fstab(project: Shell, point: Path, tmp_path: Path) -> None:
    helper, table = tmp_path / "mount.shardfs", tmp_path / "fstab"
    helper.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {sys.path}\n"
        "from shardfs_cli.mount_helper import main\nmain()\n"
    )
    helper.chmod(0o755)
    given = ("--read-only", "--branch", "main", "--engine", "kernel", "--deadline", "7")
    table.write_text(project("mount", point, *given, "--print-fstab").out)
    assert not point.exists()
    point.mkdir()
    before = Path("/proc/self/mounts").read_text().count(" fuse.shardfs ro,")
    command = ["unshare", "--mount", "sh", "-ec", FROM_FSTAB, "sh", *map(str, (helper, table, point))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["hello", str(before + 1)]
    until(lambda: project("mounts", "--json").json == [])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("SRC DIR", "mount -q --source SRC -- DIR"),
        ("SRC DIR -o ro,x", "mount -q --source SRC -o ro,x -- DIR"),
        ("SRC DIR -sv -n -t fuse.shardfs -N 5 -oro", "mount -q --source SRC -o ro -- DIR"),
        ("-o ro SRC DIR", "mount -q --source SRC -o ro -- DIR"),
        ("SRC DIR -f", None),
        ("SRC", "mount --help"),
        ("SRC DIR -z", "mount --help"),
    ],
)
def test_helper_of_mount_8_is_called_as_its_page_says(given: str, wanted: str | None) -> None:
    assert translated(given.split()) == (None if wanted is None else wanted.split())


def test_printed_unit_starts_what_was_asked_for(project: Shell, point: Path) -> None:
    text = project("mount", point, "--metrics", "0", "-o", "safe,nonempty", "--print-systemd").out
    [start] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(start.removeprefix("ExecStart="))
    assert Path(words[0]).is_absolute()
    running = project.start(*words[1:])
    until(lambda: (point / "latest").is_symlink())
    project("umount", point)
    assert running.communicate(timeout=60)[1] == b""
    assert running.returncode == 0


@pytest.mark.parametrize("form", ["--print-fstab", "--print-systemd"])
def test_printing_needs_a_source(project: Shell, point: Path, tmp_path: Path, form: str) -> None:
    printed = project("mount", point, form, "--json")
    assert schema.problems(SCHEMAS["mount --print-fstab"], printed.json) == []
    assert printed.json["text"].rstrip("\n") == project("mount", point, form).out.rstrip("\n")
    (tmp_path / "none").mkdir()
    assert "no repository" in project("mount", point, form, cwd=tmp_path / "none", status=10).err
    named = project("mount", point, form, "--source", tmp_path / "later", cwd=tmp_path / "none")
    assert str(tmp_path / "later") in named.out
    assert "cannot be combined" in project("mount", point, "--print-fstab", "--print-systemd", status=2).err


def test_values_that_fstab_cannot_hold_are_refused(project: Shell, point: Path) -> None:
    assert "a comma ends a word" in project("mount", point, "--log-file", "a,b", "--print-fstab", status=2).err


# Watching


def test_watching_shows_what_is_read_and_ends_by_ctrl_c(project: Shell, models: Path) -> None:
    running = project.start("stats", "--watch", "models")
    assert running.stdout is not None
    assert running.stdout.readline().split()[:3] == [b"time", b"reads/s", b"read/s"]
    assert len(running.stdout.readline().split()) >= 9
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[1] == b""
    assert running.returncode == 0


def test_watching_as_json_survives_a_stuck_mount_and_ends_with_it(project: Shell, models: Path) -> None:
    pid = listed(project)["pid"]
    (models / "latest/a.txt").read_bytes()
    running = project.start("stats", "--watch", "--json")
    assert running.stdout is not None
    first = json.loads(running.stdout.readline())
    assert first["answers"] is True
    assert first["mount"]["requests"]["open"] >= 1
    assert first["mount"]["read_bytes"] >= 6
    os.kill(pid, signal.SIGSTOP)
    try:
        while json.loads(running.stdout.readline())["answers"]:
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    while not json.loads(running.stdout.readline())["answers"]:
        pass
    project("umount", "models")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert b"is not a mount of shardfs" in err, out


def test_what_cannot_be_watched_is_said(project: Shell, point: Path) -> None:
    assert "there is none" in project("stats", "--watch", status=2).err
    assert "is not a mount of shardfs" in project("stats", "--watch", project.folder, status=1).err
    assert "leave out" in project("stats", "--watch", "--by", "codec", status=2).err
    project("mount", point)
    project("mount", "second")
    try:
        assert str(point) in project("stats", "--watch", status=2).err
    finally:
        project("umount", "second")
