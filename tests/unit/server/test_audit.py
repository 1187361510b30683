"""The audit log."""

from __future__ import annotations

import json
import logging
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shardfs.server.audit import KEPT, AuditLog
from shardfs.server.folder import ServerFolder
from tests.unit.server.guarded import audit

_WRITER = """
import sys
from pathlib import Path
from shardfs.server.audit import AuditLog
from shardfs.server.folder import ServerFolder
log = AuditLog(ServerFolder(Path(sys.argv[1])), limit=2000)
for number in range(40):
    log.write("test", who=sys.argv[2], number=number)
"""


def test_lines(tmp_path: Path) -> None:
    AuditLog(ServerFolder(tmp_path)).write("move ref", ref="refs/heads/\nä\u2028", old=None, status=200)
    (record,) = audit(tmp_path)
    assert record.keys() == {"time", "action", "ref", "status"}
    assert record["time"].endswith("Z")
    assert len(ServerFolder(tmp_path).audit.read_bytes().splitlines()) == 1
    assert stat.S_IMODE(ServerFolder(tmp_path).audit.stat().st_mode) == 0o600


def test_size_is_bounded(tmp_path: Path) -> None:
    log = AuditLog(ServerFolder(tmp_path), limit=1000)
    for number in range(301):
        log.write("test", number=number)
    files = sorted((tmp_path / ".server").glob("audit.log*"))
    assert len(files) == KEPT + 1
    assert all(path.stat().st_size < 1100 and stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    lines = [line for path in [*reversed(files[1:]), files[0]] for line in path.read_text().splitlines()]
    numbers = [json.loads(line)["number"] for line in lines]
    assert numbers == list(range(numbers[0], 301))


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    def write(who: int) -> None:
        subprocess.run([sys.executable, "-c", _WRITER, str(tmp_path), str(who)], check=True)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    lines = [line for path in (tmp_path / ".server").glob("audit.log*") for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    assert sorted((r["who"], r["number"]) for r in records) == sorted((str(w), n) for w in range(3) for n in range(40))


def test_full_disk_is_said_once_and_leaves_no_half_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A limit on the size of files is the full disk that a test can have, and take away again."""
    log = AuditLog(ServerFolder(tmp_path))
    log.write("before")
    size = ServerFolder(tmp_path).audit.stat().st_size
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, usual[1]))
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                log.write("lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(caplog.records) == 1
    assert "not recorded" in caplog.records[0].getMessage()
    log.write("after")
    assert [record["action"] for record in audit(tmp_path)] == ["before", "after"]
    assert "3 records are lost" in caplog.records[1].getMessage()


def test_nowhere_to_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        AuditLog(ServerFolder(tmp_path / "nowhere")).write("lost")
    assert "not recorded" in caplog.records[0].getMessage()
