"""Tokens at the command line: made, shown once, used, revoked."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli import schema
from tests.cli.conftest import Shell

pytestmark = pytest.mark.network


@contextmanager
def server(shell: Shell, root: Path, *options: str) -> Iterator[str]:
    """The part of a URL behind `http://` of a server with these options."""
    running = shell.start("serve", "--root", root, "--listen", "127.0.0.1:0", *options)
    assert running.stdout is not None
    try:
        yield running.stdout.readline().decode().split(" at http://")[1].strip()
    finally:
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert b"Traceback" not in err


def make(shell: Shell, root: Path, name: str, *options: str) -> str:
    options = options or ("--repository", "all")
    return shell("token", "create", "--root", root, "--name", name, *options).out.strip()


def show(shell: Shell, place: str, text: str) -> None:
    """Let the commands that follow show a token to a server."""
    shell._monkeypatch.setenv("SHARDFS_TOKEN", text)
    shell._monkeypatch.setenv("SHARDFS_TOKEN_URL", f"http://{place}")


def test_life_of_a_token(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "srv"
    root.mkdir()
    text = make(shell, root, "trainer", "--repository", "team/*", "--permission", "write")
    assert text.startswith("shardfs_")
    assert len(text.split("_")[2]) == 64
    assert text not in (root / ".server/tokens.json").read_text()
    assert text.split("_")[2] not in (root / ".server/audit.log").read_text()
    listed = shell("token", "list", "--root", root).out
    assert listed.split()[:4] == ["trainer", text.split("_")[1], "write", "team/*"]
    assert text not in listed
    assert "trainer" in shell("token", "revoke", "--root", root, text.split("_")[1]).out
    assert shell("token", "list", "--root", root).out == ""


def test_files_are_for_their_owner_alone(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "srv"
    root.mkdir()
    make(shell, root, "a")
    folder = root / ".server"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("tokens.json", "audit.log")} == {0o600}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("token create --name a", 2),
        ("token create --name a --repository ../x", 2),
        ("token create --name a --repository .server", 2),
        ("token create --name a --repository x/*/y", 2),
        ("token create --name a/b --repository all", 2),
        ("token create --name a --repository all --expires soon", 2),
        ("token create --name a --repository all --expires 0d", 2),
        ("token create --name a --repository all --permission none", 2),
        ("token create --name a --repository all --root nowhere", 1),
        ("token revoke nobody", 1),
        ("token list --root nowhere", 1),
    ],
)
def test_what_has_no_meaning_is_one_line(shell: Shell, line: str, status: int) -> None:
    assert len(shell(*line.split(), status=status).err.splitlines()[-1:]) == 1
    assert not (shell.folder / ".server").exists()


def test_name_that_is_taken(shell: Shell, tmp_path: Path) -> None:
    make(shell, tmp_path, "a")
    before = (tmp_path / ".server/tokens.json").read_bytes()
    assert "revoke" in shell("token", "create", "--root", tmp_path, "--name", "a", "--repository", "all", status=15).err
    assert (tmp_path / ".server/tokens.json").read_bytes() == before


def test_two_at_once_are_both_made(shell: Shell, tmp_path: Path) -> None:
    def one(number: int) -> bytes:
        options = ("--root", tmp_path, "--name", f"n{number % 4}", "--repository", "all", "--json")
        return shell.start("token", "create", *options).communicate(timeout=60)[0]

    with ThreadPoolExecutor(6) as pool:
        made = [json.loads(out) for out in pool.map(one, range(6))]
    names = [document["name"] for document in made if "name" in document]
    assert sorted(names) == ["n0", "n1", "n2", "n3"]
    listed = shell("token", "list", "--root", tmp_path, "--json")
    assert schema.problems(schema.load()["token list"], listed.json) == []
    assert sorted(token["name"] for token in listed.json) == names or len(listed.json) == 4


def test_revoked_by_schema(shell: Shell, tmp_path: Path) -> None:
    make(shell, tmp_path, "a", "--repository", "x", "--expires", "90min")
    document = shell("token", "revoke", "--root", tmp_path, "a", "--json")
    assert schema.problems(schema.load()["token revoke"], document.json) == []


def test_damaged_file_is_one_line_and_stays(shell: Shell, tmp_path: Path) -> None:
    make(shell, tmp_path, "a")
    file = tmp_path / ".server/tokens.json"
    file.write_text(file.read_text()[:-10])
    before = file.read_bytes()
    for line in ("token list", "token create --name b --repository all", "token revoke a"):
        assert len(shell(*line.split(), "--root", tmp_path, status=13).err.splitlines()) == 1
    assert len(shell.process("serve", "--root", tmp_path, "--listen", "127.0.0.1:0", status=13).err.splitlines()) == 1
    assert file.read_bytes() == before


def test_push_and_clone_with_a_token(project: Shell, tmp_path: Path) -> None:
    root = tmp_path / "srv"
    root.mkdir()
    writer = make(project, root, "trainer", "--repository", "demo", "--permission", "write")
    reader = make(project, root, "reader", "--repository", "demo")
    project.commit("one", a__txt="1")
    with server(project, root) as place:
        project("remote", "add", "origin", f"http://{place}demo")
        assert "token" in project("push", status=14).err
        project("clone", f"http://{place}demo", "nothing", status=14)
        show(project, place, reader)
        assert reader not in project("push", status=14).err
        assert not (root / "demo").exists()
        show(project, place, writer)
        project("push")
        project("clone", f"http://{place}demo", "copy")
        assert "trainer" in (root / "demo/logs/refs/heads/main~").read_text()
        project("token", "revoke", "--root", root, "trainer")
        project("commit", "-m", "more", "--allow-empty")
        for _ in range(100):  # the server looks at the file twice a second
            if project("push", status=None).status == 14:
                break
            project("commit", "-m", "more", "--allow-empty")
        else:
            raise AssertionError("a revoked token still opens the server")
    records = [json.loads(line) for line in (root / ".server/audit.log").read_text().splitlines()]
    moves = [record for record in records if record["action"] == "move ref"]
    assert {record["name"] for record in moves} == {"trainer"}
    assert {"denied", "push pack", "make token", "revoke token"} <= {record["action"] for record in records}
    assert not any(secret in json.dumps(records) for secret in (writer, reader))


def test_only_admin_may_lose_commits(project: Shell, tmp_path: Path) -> None:
    root = tmp_path / "srv"
    root.mkdir()
    writer = make(project, root, "trainer", "--repository", "all", "--permission", "write")
    admin = make(project, root, "boss", "--repository", "all", "--permission", "admin")
    project.commit("one", a__txt="1")
    with server(project, root) as place:
        show(project, place, writer)
        project("remote", "add", "origin", f"http://{place}demo")
        project("push")
        project("clone", f"http://{place}demo", tmp_path / "copy")
        other = Shell(tmp_path / "copy", project._monkeypatch)
        other.commit("theirs", b__txt="1")
        other("push")
        project.commit("mine", c__txt="1")
        assert "admin" in project("push", "--force", status=14).err
        show(project, place, admin)
        project("push", "--force")


def test_push_over_the_quota_says_so_at_once(project: Shell, tmp_path: Path) -> None:
    root = tmp_path / "srv"
    (root / ".server").mkdir(parents=True)
    (root / ".server/config.toml").write_text('[repository.demo]\nanonymous = "write"\nquota = "1K"\n')
    project.commit("one", noise=os.urandom(5000))
    with server(project, root) as place:
        project("remote", "add", "origin", f"http://{place}demo")
        err = project("push", status=14).err
        assert "demo has a quota of 1024 bytes" in err
        assert len(err.splitlines()) == 1
        (root / ".server/config.toml").write_text('[repository.demo]\nanonymous = "write"\nquota = "1M"\n')
        for _ in range(100):  # the server looks at the file twice a second
            if project("push", status=None).status == 0:
                break
        else:
            raise AssertionError("the new quota does not count")


def test_rules_with_a_mistake(project: Shell, tmp_path: Path) -> None:
    (tmp_path / ".server").mkdir()
    (tmp_path / ".server/config.toml").write_text('[repository.demo]\nanonymous = "reed"\n')
    err = project.process("serve", "--root", tmp_path, "--listen", "127.0.0.1:0", status=13).err
    assert "'reed'" in err
    assert "config.toml" in err
    assert len(err.splitlines()) == 1


def test_server_that_nobody_can_enter_says_how(shell: Shell, tmp_path: Path) -> None:
    for options, said in (([], True), (["--anonymous", "read"], False)):
        running = shell.start("serve", "--root", tmp_path, "--listen", "127.0.0.1:0", *options)
        assert running.stdout is not None
        running.stdout.readline()
        running.terminate()
        _, err = running.communicate(timeout=30)
        assert (b"shardfs token create" in err) is said
        assert len(err.splitlines()) == said
