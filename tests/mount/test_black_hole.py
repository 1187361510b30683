"""A remote that takes connections and never answers again: every read ends in time, with its cause, or is killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardfs import mountinfo
from shardfs.mount import session
from shardfs.mount.operating import Operating
from tests.mount.conftest import eventually, make_project
from tests.mount.test_lifecycle import gone, reader_of, waits
from tests.serving import serving

pytestmark = [pytest.mark.fuse, pytest.mark.network, pytest.mark.usefixtures("engine")]

DATA = os.urandom(3 << 20)
KILLED_S = 5.0  # for a killed program to be gone on a busy machine; it takes milliseconds


@dataclass
class Hole:
    """A mount of a remote that has stopped."""

    point: Path
    pid: int
    log: Path

    @property
    def file(self) -> Path:
        """A file of which no byte is here."""
        return self.point / "latest" / "big.bin"


@contextmanager
def black_hole(tmp_path: Path, deadline_s: float) -> Iterator[Hole]:
    """Mount a remote, look at its names, and stop its server."""
    make_project(tmp_path / "project", {"big.bin": DATA, "small.txt": b"small\n"})
    shutil.copytree(tmp_path / "project" / ".shardfs", tmp_path / "srv" / "demo")
    with serving(tmp_path / "srv", "read-only") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARDFS_DEADLINE", str(deadline_s))
        operating = Operating(log=tmp_path / "m.log")
        record = session.mount(tmp_path / "models", f"{server.url}/demo", remote=True, operating=operating)
        hole = Hole(record.mountpoint, record.pid, tmp_path / "m.log")
        try:
            assert hole.file.stat().st_size == len(DATA)
            server.process.send_signal(signal.SIGSTOP)
            yield hole
        finally:
            server.process.send_signal(signal.SIGCONT)
            if mountinfo.top_row(record.mountpoint) is not None:
                session.unmount(record.mountpoint, force=True)
        assert gone(record.pid)


def test_reads_end_with_an_errno_and_its_cause(tmp_path: Path) -> None:
    with black_hole(tmp_path, deadline_s=1) as hole:
        for _ in range(2):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is tested
                hole.file.read_bytes()
            assert caught.value.errno == errno.EIO
        errors = (hole.point / ".shardfs" / "errors").read_text()
        assert "EIO" in errors.splitlines()[-1]
        assert "timed out" in errors
        assert json.loads((hole.point / ".shardfs" / "stats.json").read_text())["mount"]["errors"]["EIO"] >= 1
        assert any(" ERROR " in line and "EIO" in line for line in hole.log.read_text().splitlines())
        # What is known is still shown.
        assert sorted(os.listdir(hole.point / "latest")) == ["big.bin", "small.txt"]


def test_many_readers_end_and_the_mount_goes_on(tmp_path: Path) -> None:
    program = "import sys\ntry: open(sys.argv[1], 'rb').read()\nexcept OSError as error: sys.exit(error.errno)"
    with black_hole(tmp_path, deadline_s=2) as hole:
        readers = [subprocess.Popen([sys.executable, "-S", "-c", program, str(hole.file)]) for _ in range(8)]
        stats = json.loads((hole.point / ".shardfs" / "stats.json").read_text())
        assert stats["uptime_s"] > 0
        assert {reader.wait(60) for reader in readers} == {errno.EIO}


def test_a_killed_reader_is_gone_long_before_the_deadline(tmp_path: Path) -> None:
    with black_hole(tmp_path, deadline_s=600) as hole, reader_of(hole.file) as process:
        assert eventually(lambda: waits(process), 10)
        process.kill()
        process.wait(KILLED_S)
        assert json.loads((hole.point / ".shardfs" / "config.json").read_text())["pid"] == hole.pid


def test_metadata_that_is_not_here_ends_in_time_too(tmp_path: Path) -> None:
    with black_hole(tmp_path, deadline_s=1) as hole:
        os.listdir(hole.point)
        os.listdir(hole.point / "versions")
        assert (hole.point / "latest").readlink()


def test_the_end_waits_neither_for_readers_nor_for_what_is_read_ahead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel reads ahead of a program, the daemon ahead of both, and a thread looks for tensors."""
    with black_hole(tmp_path, deadline_s=600) as hole, reader_of(hole.file) as process:
        assert eventually(lambda: waits(process), 10)
        session.unmount(hole.point, force=True, timeout_s=KILLED_S)
        assert gone(hole.pid)
        assert process.wait(KILLED_S) == 1
    assert "it is killed" not in caplog.text
