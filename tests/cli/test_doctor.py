"""The doctor as a user calls it: of repositories, machines, mounts and remotes, and the archive that it makes."""

from __future__ import annotations

import json
import os
import signal
import stat
import tarfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shardfs.mount import records
from tests.cli import schema
from tests.cli.conftest import Shell
from tests.cli.test_operating import listed, models, point, until

__all__ = ["models", "point"]  # fixtures

SCHEMAS = schema.load()


def told(project: Shell, words: str, *options: str, status: int = 0) -> Any:
    """The one finding with these words."""
    result = project("doctor", "--json", *options, status=status)
    assert schema.problems(SCHEMAS["doctor"], result.json) == []
    [found] = [finding for finding in result.json["findings"] if words in finding["what"]]
    return found


def test_without_a_repository_the_machine_is_looked_at(shell: Shell) -> None:
    assert told(shell, "there is no repository here")["level"] == "note"
    assert told(shell, "memory.budget")["level"] == "ok"
    assert "no repository" in shell("doctor", "--remote", status=10).err
    assert "no repository" in shell("doctor", "--rebuild-index", status=10).err
    shell("doctor", "--fix")


def test_remotes_are_asked_when_asked_for(project: Shell) -> None:
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", project.folder.parent / "nothing")
    assert not [f for f in project("doctor", "--json").json["findings"] if "cannot be used" in f["what"]]
    assert told(project, "remote origin cannot be used", "--remote")["level"] == "warning"


@pytest.mark.fuse
def test_a_stuck_mount_is_an_error_and_its_remedy_works(project: Shell, models: Path) -> None:
    assert told(project, "answers")["level"] == "ok"
    os.kill(listed(project)["pid"], signal.SIGSTOP)
    found = told(project, "does not answer", status=1)
    assert found["fix"] == f"shardfs umount --force {models}"
    assert told(project, "does not answer", "--fix", status=1)["level"] == "error"  # it is left, and said
    assert listed(project)["status"] == "not answering"  # it may only be slow
    project("umount", "--force", "--timeout", "0.5", models)
    assert project("mounts", "--json").json == []


@pytest.mark.fuse
def test_a_dead_mount_is_ended(project: Shell, models: Path) -> None:
    os.kill(listed(project)["pid"], signal.SIGKILL)
    until(lambda: bool(listed(project)["status"] == "dead"))
    assert told(project, "lost its daemon")["fix"] == "shardfs doctor --fix"
    assert told(project, "was ended", "--fix")["level"] == "ok"
    assert project("mounts", "--json").json == []


@pytest.mark.fuse
@pytest.mark.parametrize("form", ["text", "json"])
def test_recent_errors_of_the_log_are_told(project: Shell, point: Path, form: str) -> None:
    log = project.folder / "m.log"
    now, old = datetime.now().astimezone(), datetime.now().astimezone() - timedelta(days=3)
    if form == "text":
        lines = [
            f"{when:%Y-%m-%d %H:%M:%S},123 ERROR 7 shardfs.x: {what}" for when, what in ((old, "old"), (now, "new"))
        ]
    else:
        entries = ((old, "error", "old"), (now, "error", "new"), (now, "info", "fine"))
        lines = [json.dumps({"time": t.isoformat(), "level": level, "message": what}) for t, level, what in entries]
    log.write_text("\n".join(lines) + "\n")
    project("mount", point, "--log-file", log, "--log-format", form)
    found = told(project, "errors in the log")
    assert found["what"].startswith(f"1 errors in the log of {point}")
    assert found["what"].endswith("new")
    assert found["fix"] == f"tail {log}"


@pytest.mark.fuse
def test_the_archive_has_what_helps_and_no_secrets(project: Shell, models: Path) -> None:
    secret = "hunter2"
    project("remote", "add", "origin", f"https://me:{secret}@example.org:8750/demo")
    record = records.read(models)
    assert record is not None
    assert record.log is not None
    with record.log.open("a") as log:
        log.write(f"cannot fetch https://me:{secret}@h/x and http://h/y?token={secret}&z=1 today\n")
    project("doctor", "--bundle", "help.tar.gz")
    path = project.folder / "help.tar.gz"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        files = {m.name.removeprefix("shardfs-doctor/"): archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert secret.encode() not in b"".join(files.values())
    assert b"https://***@h/x and http://h/y?*** today" in files[f"logs/{record.log.name}"]
    assert b"example.org" in files["settings/repository.toml"]
    assert json.loads(files["mounts/0/record.json"])["mountpoint"] == str(models)
    assert json.loads(files["mounts/0/stats.json"])["mount"]["requests"]
    assert any("answers" in finding["what"] for finding in json.loads(files["findings.json"]))
    assert json.loads(files["versions.json"])["shardfs"]
    assert "cannot be written" in project("doctor", "--bundle", "no/such/folder", status=1).err
