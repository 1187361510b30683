"""A server, a push, a clone, and a mount without a clone: two machines in two directories."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import unprivileged
from tests.cli import schema
from tests.cli.conftest import Shell

pytestmark = pytest.mark.network

Maker = Callable[[int], bytes]


@pytest.fixture
def url(shell: Shell, tmp_path: Path) -> Iterator[str]:
    """The address of a server process."""
    running = shell.start(
        "serve", "--root", tmp_path / "srv", "--listen", "127.0.0.1:0", "--anonymous", "admin", "--json"
    )
    yield announced(running)["url"]
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert b"Traceback" not in err


def announced(running: subprocess.Popen[bytes]) -> dict[str, str]:
    """The document that a server prints when it listens."""
    assert running.stdout is not None
    text = b""
    while b"}" not in text:
        line = running.stdout.readline()
        assert line, running.communicate()
        text += line
    value = json.loads(text)
    assert schema.problems(schema.load()["serve"], value) == []
    assert isinstance(value, dict)
    return value


def test_push_clone_commit_push_pull(project: Shell, url: str, tmp_path: Path, safetensors_bytes: Maker) -> None:
    first = project.commit("one", "--tag", "v1", model__safetensors=safetensors_bytes(0))
    project("remote", "add", "origin", f"{url}demo")
    assert "new at" in project("push", "--tags").out
    assert "up to date" in project("push").out
    copy = tmp_path / "copy"
    assert str(copy) in project("clone", f"{url}demo", copy).out
    assert project("-C", copy, "log", "--json").json[0]["commit"] == first
    assert project("-C", copy, "show", "v1", "--json").json["commit"] == first
    data = project.start("-C", copy, "cat", "HEAD:model.safetensors").communicate()[0]
    assert data == safetensors_bytes(0)
    (copy / "note.txt").write_text("n")
    project("-C", copy, "add", "note.txt")
    project("-C", copy, "commit", "-m", "two")
    project("-C", copy, "push")
    assert "origin/main" in project("fetch").out
    assert project("log", "origin/main", "--json").json[0]["message"] == "two"
    assert "->" in project("pull").out
    assert "up to date" in project("pull").out
    assert project("cat", "HEAD:note.txt").out == "n"


def test_push_that_would_lose_commits_is_refused(project: Shell, url: str, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", f"{url}demo")
    project("push")
    project("clone", f"{url}demo", tmp_path / "copy")
    other = Shell(tmp_path / "copy", project._monkeypatch)
    other.commit("theirs", b__txt="1")
    other("push")
    project.commit("mine", c__txt="1")
    assert len(project("push", status=15).err.splitlines()) == 1
    assert len(project("pull", status=15).err.splitlines()) == 1
    project("push", "--force")
    assert project("-C", other.folder, "fetch", status=None).status in (0, 15)


def test_ones_own_version_goes_on_top_of_that_of_others(project: Shell, url: str, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", f"{url}demo")
    project("push")
    project("clone", f"{url}demo", tmp_path / "copy")
    Shell(tmp_path / "copy", project._monkeypatch).commit("theirs", b__txt="1")
    project("-C", tmp_path / "copy", "push")
    project.commit("mine", c__txt="1")
    assert "docs/how-to/push.md" in project("pull", status=15).err
    project("switch", "-c", "mine")
    project("branch", "-D", "main")
    hint = project("switch", "main", status=1).err
    assert "`shardfs switch -c main origin/main` makes it" in hint
    project("switch", "-c", "main", "origin/main")
    project("checkout", "mine", "c.txt")
    project("add", "c.txt")
    project("commit", "-m", "mine, on top")
    project("push")
    project("-C", tmp_path / "copy", "pull")
    assert project("-C", tmp_path / "copy", "ls", "HEAD").out.split() == ["a.txt", "b.txt", "c.txt"]


def test_read_only_server_refuses_a_push(project: Shell, tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    serve = ("serve", "--root", tmp_path / "srv", "--listen", "127.0.0.1:0", "--anonymous", "write")
    running = project.start(*serve, "--read-only", "--json")
    try:
        address = announced(running)["url"]
        project.commit("one", a__txt="1")
        project("remote", "add", "origin", f"{address}demo")
        project("push", status=14)
        project("clone", f"{address}demo", "copy", status=None)
        assert not (project.folder / "copy").exists()
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 0


def test_port_that_is_taken_is_one_line(shell: Shell, url: str, tmp_path: Path) -> None:
    address = url.removeprefix("http://").rstrip("/")
    result = shell.process("serve", "--root", tmp_path / "srv", "--listen", address, status=1)
    assert "cannot listen" in result.err
    assert len(result.err.splitlines()) == 1


def test_server_tells_its_address_as_text_too(shell: Shell, tmp_path: Path) -> None:
    running = shell.start("serve", "--root", tmp_path / "srv", "--listen", "127.0.0.1:0", "--no-create")
    assert running.stdout is not None
    assert b"http://127.0.0.1:" in running.stdout.readline()
    running.terminate()
    running.communicate(timeout=30)
    assert running.returncode == 0


@pytest.mark.fuse
def test_mount_without_a_clone(project: Shell, url: str, tmp_path: Path, safetensors_bytes: Maker) -> None:
    project.commit("one", model__safetensors=safetensors_bytes(0))
    project.commit("two", model__safetensors=safetensors_bytes(1))
    project("remote", "add", "origin", f"{url}demo")
    project("push")
    elsewhere = Shell(tmp_path, project._monkeypatch)
    record = elsewhere("mount", "models", "--remote", f"{url}demo", "--json").json
    assert record["read_only"] is True
    try:
        found = tmp_path / "models/versions/0001-one/model.safetensors"
        assert found.read_bytes() == safetensors_bytes(0)
        assert (tmp_path / "models/latest/model.safetensors").read_bytes() == safetensors_bytes(1)
    finally:
        elsewhere("umount", "models")


def test_clone_names_its_directory_after_the_url(project: Shell, url: str, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", f"{url}demo")
    project("push")
    (tmp_path / "elsewhere").mkdir()
    project("clone", f"{url}demo/", "--full", cwd=tmp_path / "elsewhere")
    assert project("ls", cwd=tmp_path / "elsewhere/demo").out.split() == ["a.txt"]
    project("clone", f"{url}demo/", status=15, cwd=tmp_path / "elsewhere")
    assert project("clone", f"{url}nothing", status=None, cwd=tmp_path / "elsewhere").status in (10, 14)


def test_a_cache_has_no_root(shell: Shell) -> None:
    refused = shell("serve", "--cache", "http://127.0.0.1:9", "--root", "x", status=2)
    assert "--cache-dir" in refused.err
    refused = shell("serve", "--cache-dir", "x", status=2)
    assert "--cache URL" in refused.err


def test_a_cache_needs_a_directory_that_it_can_write_to(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = ("--cache", "http://127.0.0.1:9", "--listen", "127.0.0.1:0", "--cache-dir")
    assert shell("serve", *options, tmp_path / "file", status=1).err.endswith("/file: it is no directory\n")
    with unprivileged.home() as home:
        closed = home.parent / "closed"
        closed.mkdir(mode=0o755)
        status, said = unprivileged.run(home, [sys.executable, "-m", "shardfs_cli", "serve", *options, closed])
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"shardfs: cannot keep anything in {closed}: it is not writable")
