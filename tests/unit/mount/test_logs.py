"""Where the records of a daemon go, in a process of its own: logging is one for each process."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shardfs.errors import MountError
from shardfs.mount import logs
from shardfs.mount.operating import Operating

PROGRAM = """
import logging, sys
from pathlib import Path
from shardfs.mount import logs
from shardfs.mount.operating import Operating
from shardfs_cli.main import _log_to_stderr
_log_to_stderr()
operating = Operating(Path(sys.argv[1]) if sys.argv[1] else None, sys.argv[2] or None, sys.argv[3])
logs.begin(operating, Path("/mnt/models"))
log = logging.getLogger("shardfs.mount.test")
{}
"""
SAY = 'log.debug("fine"); log.info("plain"); log.warning("two\\nlines")'


def run(body: str, path: Path | str = "", level: str = "", form: str = "text") -> str:
    """Log in another process; what it wrote to standard error."""
    command = [sys.executable, "-c", PROGRAM.format(body), str(path), level, form]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stderr


def test_a_log_stays_small(tmp_path: Path) -> None:
    run("log.propagate and [log.error('y' * 1000) for _ in range(6000)]", tmp_path / "deep" / "log")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "deep").iterdir()}
    assert sorted(sizes) == ["log", "log.1", "log.2", "log.3"]
    assert max(sizes.values()) <= 1 << 20


def test_a_file_comes_on_top_of_what_is_printed(tmp_path: Path) -> None:
    printed = run(SAY, tmp_path / "log")
    assert printed == "shardfs: two\\x0alines\n"
    text = (tmp_path / "log").read_text()
    assert "INFO" in text
    assert "plain" in text
    assert "fine" not in text


def test_names_of_any_bytes_are_one_line(tmp_path: Path) -> None:
    body = "try:\n    raise OSError('caf\\udce9')\nexcept OSError:\n    log.exception('line\\nbreak caf\\udce9')"
    assert "Logging error" not in run(body, tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].endswith(r"line\nbreak caf\udce9")
    assert lines[-1] == r"OSError: caf\udce9"


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_levels(tmp_path: Path, level: str, count: int) -> None:
    run(SAY, tmp_path / "log", level, "json")
    assert len((tmp_path / "log").read_text().splitlines()) == count


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    body = SAY + "\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('caf\\udce9')"
    lines = [json.loads(line) for line in run(body, form="json").splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "plain"),
        ("warning", "two\nlines"),
        ("error", "caf\udce9"),
    ]
    assert {(line["logger"], line["mountpoint"]) for line in lines} == {("shardfs.mount.test", "/mnt/models")}
    assert "ZeroDivisionError" in lines[-1]["exception"]
    moment = datetime.fromisoformat(lines[0]["time"])
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 600


def test_without_a_choice_nothing_changes() -> None:
    assert run(SAY) == "shardfs: two\\x0alines\n"


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"cannot be written.*--log-file"):
        logs.begin(Operating(tmp_path), tmp_path)
