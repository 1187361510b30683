"""Mounts as a user makes and ends them: real daemons, real kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli import schema
from tests.cli.conftest import PROGRAM, Shell

pytestmark = pytest.mark.fuse

SCHEMAS = schema.load()
VISIBLE_WITHIN_S = 1.0  # what another process changed; docs/reference/mount-semantics.md
MOUNT_FUSE = shutil.which("mount.fuse3", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@pytest.fixture
def models(project: Shell, safetensors_bytes: Callable[[int], bytes]) -> Iterator[Path]:
    """A mount of a repository with one commit."""
    project.commit("initial", "--tag", "v1", **{"weights/model__safetensors": safetensors_bytes(0)})
    point = project.folder / "models"
    project("mount", "models", "-q")
    yield point
    if os.path.ismount(point):
        project("umount", "--force", point, cwd=project.folder)


def names(folder: Path) -> list[str]:
    """Names in a directory, sorted."""
    return sorted(path.name for path in folder.iterdir())


def test_versions_are_directories_and_staging_becomes_a_commit(
    project: Shell, models: Path, safetensors_bytes: Callable[[int], bytes]
) -> None:
    assert (models / "latest/weights/model.safetensors").read_bytes() == safetensors_bytes(0)
    assert names(models / "versions") == ["0001-initial"]
    (models / "staging/weights/model.safetensors").write_bytes(safetensors_bytes(1))
    assert "weights/model.safetensors" in project("status").out  # staged, or for a moment still being written
    project("commit", "-m", "epoch 1")
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while names(models / "versions") == ["0001-initial"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert names(models / "versions") == ["0001-initial", "0002-epoch-1"]
    assert (models / "latest/weights/model.safetensors").read_bytes() == safetensors_bytes(1)
    (models / "staging/note.txt").write_text("hello")
    (models / ".shardfs/commit").write_text("from a program\n")
    assert project("log", "--json").json[0]["message"].strip() == "from a program"
    assert project("cat", "HEAD:note.txt").out == "hello"


def test_commands_work_below_the_mount(project: Shell, models: Path) -> None:
    for folder in ("latest/weights", "staging/weights", "versions/0001-initial/weights", "tags/v1/weights"):
        here = models / folder
        assert project("ls", "HEAD", ".", cwd=here).out.split() == ["model.safetensors"], folder
        assert len(project("log", "model.safetensors", "--json", cwd=here).json) == 1
        assert "on branch main" in project("status", cwd=here).out
    assert project("ls", "HEAD", "weights", cwd=models).out.split() == ["model.safetensors"]
    (models / "staging/new.txt").write_text("x")
    project("commit", "-m", "from inside", cwd=models / "staging")
    assert project("ls", cwd=models).out.split() == ["new.txt", "weights/"]


def test_scans_do_not_walk_into_the_mount(project: Shell, models: Path) -> None:
    project("add", "-A")
    assert project("status", "--json").json["staged"] == []
    assert project("status", "--json").json["untracked"] == []
    assert "mount" in project("add", "models/latest", status=2).err
    assert models.is_dir()


def test_mounts_lists_what_umount_ends(project: Shell, models: Path) -> None:
    listed = project("mounts", "--json")
    assert schema.problems(SCHEMAS["mounts"], listed.json) == []
    [mount] = listed.json
    assert (mount["mountpoint"], mount["status"], mount["branch"]) == (str(models), "alive", "main")
    assert str(models) in project("mounts").out
    ended = project("umount", "models", "--json")
    assert schema.problems(SCHEMAS["umount"], ended.json) == []
    assert project("mounts", "--json").json == []
    assert not models.exists()
    assert "not a mount" in project("umount", "models", status=1).err


def test_second_mount_on_the_same_place_is_refused(project: Shell, models: Path) -> None:
    assert "already mounted" in project("mount", models, status=1).err


def test_mount_point_with_content_is_refused(project: Shell) -> None:
    project.commit("one", a__txt="1")
    project.write("full/file", "x")
    assert "not empty" in project("mount", "full", status=1).err
    document = project("mount", "full", "--nonempty", "--json")
    assert schema.problems(SCHEMAS["mount"], document.json) == []
    project("umount", "full")
    assert (project.folder / "full/file").read_text() == "x"


def test_busy_mount_is_not_ended_without_force(project: Shell, models: Path) -> None:
    fd = os.open(models / "latest/weights/model.safetensors", os.O_RDONLY)
    assert "in use" in project("umount", "models", status=1).err
    project("umount", "--force", "models")
    with suppress(OSError):  # the daemon is gone, the descriptor is freed all the same
        os.close(fd)


def test_what_cannot_be_ended_keeps_no_other(project: Shell, models: Path) -> None:
    ended = project("umount", "nothing", models, "neither", status=1)
    assert [line.partition(" is not a mount")[0] for line in ended.err.splitlines()] == [
        f"shardfs: {project.folder / name}" for name in ("nothing", "neither")
    ]
    assert not models.exists()


def test_words_with_a_wrong_value_are_told_from_unknown_ones(project: Shell) -> None:
    assert "cannot be 'abc'" in project("mount", "m", "-o", "ro,deadline=abc", status=2).err
    assert "not an option" in project("mount", "m", "-o", "deadlines=1", status=2).err


def test_a_detached_head_is_no_branch(project: Shell) -> None:
    project.commit("one", a__txt="1")
    project("switch", "--detach", "HEAD")
    assert "(no branch)" in project("mount", "m").out
    project("umount", "m")


def test_branch_and_read_only(project: Shell) -> None:
    project.commit("one", a__txt="1")
    project("branch", "exp")
    record = project("mount", "m1", "--branch", "exp", "--json").json
    assert record["branch"] == "exp"
    (project.folder / "m1/staging/b.txt").write_text("2")
    project("commit", "-m", "on exp", "--branch", "exp")
    assert project("ls", "exp").out.split() == ["a.txt", "b.txt"]
    assert project("ls").out.split() == ["a.txt"]
    assert project("mount", "m2", "-o", "rw,noatime,ro", "--json").json["read_only"] is True
    with pytest.raises(OSError, match=r"Read-only|Permission|No such"):
        (project.folder / "m2/staging/x").write_text("x")
    project("umount", "m1", "m2")
    assert "no branch 'nope'" in project("mount", "m3", "--branch", "nope", status=1).err
    assert not (project.folder / "m3").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_mount_in_front_ends_cleanly_by_a_signal(project: Shell, number: int) -> None:
    project.commit("one", a__txt="1")
    running = project.start("mount", "-f", "models", "--deadline", "5")
    point = project.folder / "models"
    deadline = time.monotonic() + 30
    while not (point / "latest").is_symlink():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (point / "latest/a.txt").read_text() == "1"
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, b"")
    assert b"Ctrl-C" in out
    assert not os.path.ismount(point)


def test_form_in_which_mount_8_calls(project: Shell) -> None:
    project.commit("one", a__txt="1")
    project(project.folder, project.folder / "models", "-o", "rw,dev,suid,branch=main,engine=libfuse")
    assert (project.folder / "models/latest/a.txt").read_text() == "1"
    project("umount", "models")


@pytest.mark.skipif(MOUNT_FUSE is None, reason="mount.fuse3 is not installed")
def test_mount_8_by_type(project: Shell, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    program = tmp_path / "bin/shardfs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    point = project.folder / "models"
    point.mkdir()
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = [str(MOUNT_FUSE), str(project.folder), str(point), "-t", "fuse.shardfs", "-o", "ro"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (point / "latest/a.txt").read_text() == "1"
    project("umount", point)


@pytest.mark.parametrize("words", ["nope", "branch", "allow_other=1", "deadline=soon", "engine=fast", "log_level=loud"])
def test_unknown_words_are_usage_errors(project: Shell, words: str) -> None:
    assert words in project("mount", "models", "-o", words, status=2).err


def test_mount_needs_a_repository(shell: Shell) -> None:
    assert "no repository" in shell("mount", "models", status=10).err
    assert not (shell.folder / "models").exists()


def test_dead_mount_is_told_and_mended(project: Shell, models: Path) -> None:
    [mount] = project("mounts", "--json").json
    os.kill(mount["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while project("mounts", "--json").json[0]["status"] != "dead":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "lost its daemon" in project("doctor").out
    for line in ("status", "log", "ls HEAD weights", "log weights/model.safetensors"):
        inside = ["sh", "-c", f"cd {models} && exec {' '.join(PROGRAM)} {line}"]
        done = subprocess.run(inside, cwd=project.folder, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        assert "internal error" not in done.stderr, done.stderr
    assert "on branch main" in project("status").out
    assert "was ended" in project("doctor", "--fix").out
    assert project("mounts", "--json").json == []
    project("mount", models)
    assert (models / "latest/weights").is_dir()
