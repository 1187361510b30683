"""Records, jobs, and the checks before a mount; no mount is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shardfs import mountinfo
from shardfs.errors import MountError
from shardfs.mount import records, session, umount
from shardfs.mount.job import Job
from shardfs.mount.operating import Operating
from shardfs.mount.options import MountOptions
from shardfs.mount.records import MountRecord
from shardfs.mountinfo import MountRow


def record_of(point: Path, pid: int | None = None) -> MountRecord:
    pid = os.getpid() if pid is None else pid
    start = records.process_start(pid) or 1
    return MountRecord(point, "/srv/x", "main", False, pid, start, 5.0, "kernel", 39, point / "log", True)


@pytest.fixture
def gone() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_records_come_back(tmp_path: Path) -> None:
    record = record_of(tmp_path / "caf\udce9")
    records.write(record)
    assert records.read(record.mountpoint) == record
    assert record.status == "alive"
    assert MountRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    records.forget(record)
    assert records.read(record.mountpoint) is None


def test_a_reused_pid_is_not_the_daemon(tmp_path: Path) -> None:
    record = record_of(tmp_path)
    assert replace(record, process_start=record.process_start - 1).status == "dead"


def test_a_newer_mount_keeps_its_record(tmp_path: Path) -> None:
    old, new = replace(record_of(tmp_path), process_start=1), record_of(tmp_path)
    records.write(new)
    records.forget(old)
    assert records.read(tmp_path) == new


def test_listing_drops_records_of_mounts_that_are_over(
    tmp_path: Path, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, dead, alive = tmp_path / "over", tmp_path / "dead", tmp_path / "alive"
    for point, pid in ((over, gone), (dead, gone), (alive, None)):
        records.write(record_of(point, pid))
    monkeypatch.setattr(mountinfo, "rows", lambda: [MountRow(dead, "0:39", mountinfo.TYPE, "x")])
    assert {r.mountpoint: r.status for r in records.list_mounts()} == {dead: "dead", alive: "alive"}
    assert records.read(over) is None


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    records.write(record_of(tmp_path))
    [path] = [p for folder in records._folders() for p in folder.glob("*.json")]
    for text in ("", "{}", "[1]", '{"mountpoint": 5}'):
        path.write_text(text)
        assert records.read(tmp_path) is None
    assert records.list_mounts() == []


def test_records_are_found_without_a_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = os.environ["XDG_RUNTIME_DIR"]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    records.write(record_of(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert records.read(tmp_path) is not None


def test_jobs_travel_and_hide_credentials(tmp_path: Path) -> None:
    url = "https://me:secret@example.org:8750/demo?token=secret"
    operating = Operating(tmp_path / "log", log_format="json", metrics="9750")
    job = Job(tmp_path, url, True, MountOptions(branch="exp"), True, operating)
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert job.public_source == "https://example.org:8750/demo"
    assert replace(job, source="/a@b/c", remote=False).public_source == "/a@b/c"


@pytest.mark.parametrize("prepare", ["file", "full", "store", "hidden"])
def test_unfit_mount_points_are_refused_and_left_alone(tmp_path: Path, prepare: str) -> None:
    point = tmp_path / "point"
    if prepare == "file":
        point.write_text("x")
    elif prepare == "full":
        (point / "content").mkdir(parents=True)
    elif prepare == "store":
        (tmp_path / "config.toml").touch()
        (tmp_path / "HEAD").touch()
    else:
        point = tmp_path / ".shardfs" / "point"
    existed = point.exists()
    with pytest.raises(MountError, match="point"):
        session.mount(point, tmp_path)
    assert point.exists() == existed


def test_a_live_mount_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(record_of(tmp_path))
    row = MountRow(tmp_path, "0:39", mountinfo.TYPE, "x")
    monkeypatch.setattr(mountinfo, "top_row", lambda point: row if point == tmp_path else None)
    with pytest.raises(MountError, match=f"already mounted by process {os.getpid()}"):
        session.mount(tmp_path, tmp_path)


def test_a_mount_without_record_is_refused_when_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = MountRow(tmp_path, "0:39", mountinfo.TYPE, "x")
    monkeypatch.setattr(mountinfo, "top_row", lambda point: row if point == tmp_path else None)
    with pytest.raises(MountError, match="already mounted;"):
        session.mount(tmp_path, tmp_path)


def test_a_missing_device_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("shardfs.mount.session.os.open", refuse)
    point = tmp_path / "point"
    with pytest.raises(MountError, match="/dev/fuse cannot be opened"):
        session.mount(point, tmp_path)
    assert not point.exists()


def test_a_daemon_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_check_device", lambda: None)
    monkeypatch.setattr(session, "DAEMON", (sys.executable, "-c", "import time; time.sleep(60)"))
    point = tmp_path / "point"
    with pytest.raises(MountError, match="not ready after"):
        session.mount(point, tmp_path, ready_s=0.3)
    assert not point.exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; print('Traceback\\nthe reason', file=sys.stderr)", "the reason"),
        ("pass", "the daemon ended; its log is"),
        ('print(\'{"kind": "MountError", "error": "told"}\')', "told"),
    ],
)
def test_a_daemon_that_fails_gives_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    monkeypatch.setattr(session, "_check_device", lambda: None)
    monkeypatch.setattr(session, "DAEMON", (sys.executable, "-c", program))
    with pytest.raises(MountError, match=message):
        session.mount(tmp_path / "point", tmp_path)


def test_what_is_not_mounted_cannot_be_unmounted(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="is not a mount of shardfs"):
        umount.unmount(tmp_path)


def test_users_of_a_directory_are_named(tmp_path: Path) -> None:
    program = "import sys; f = open(sys.argv[1], 'w'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = umount.users(tmp_path)
        process.communicate()
    assert [name.rpartition("(")[2] for name in found] == [f"{process.pid})"]
    assert umount.users(tmp_path) == []


def test_importing_the_session_loads_neither_fuse_nor_the_store() -> None:
    heavy = ("mfusepy", "sqlite3", "blake3", "zstandard", "shardfs.repository")
    program = f"import sys, shardfs.mount.session; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
