"""Whole work over object storage: OpenStack Swift by its S3 interface, and its public buckets by plain HTTP."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

import shardfs
from shardfs.formats.ids import CommitId
from shardfs.remotes.registry import open_remote
from tests.cli.conftest import Shell
from tests.swift import Swift

pytestmark = pytest.mark.network

Maker = Callable[[int], bytes]
PUSHERS = 8

# Moves a branch again and again, from where it is; prints each move that took place.
MOVER = """
import hashlib, sys
from shardfs.errors import RefChangedError
from shardfs.formats.ids import CommitId
from shardfs.remotes.registry import open_remote
remote, name = open_remote(sys.argv[1]), "refs/heads/main"
for step in range(4):
    old = remote.refs().refs.get(name)
    new = hashlib.sha256(f"{sys.argv[2]} {step}".encode()).digest()
    try:
        remote.update_ref(name, old, new)
    except RefChangedError:
        continue
    print(old.hex() if old else "-", new.hex())
"""


@pytest.fixture
def url(s3: Swift, tmp_path: Path) -> str:
    """A place of the test's own."""
    s3.make_bucket("work")
    return f"s3://work/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"


def test_push_clone_commit_push_pull(project: Shell, url: str, tmp_path: Path, safetensors_bytes: Maker) -> None:
    first = project.commit("one", "--tag", "v1", model__safetensors=safetensors_bytes(0))
    project("remote", "add", "origin", url)
    assert "new at" in project("push", "--tags").out
    assert "up to date" in project("push").out
    copy = tmp_path / "copy"
    project("clone", url, copy)
    assert project("-C", copy, "show", "v1", "--json").json["commit"] == first
    with shardfs.open(copy) as repo, repo.read("HEAD:model.safetensors") as file:
        assert file.read() == safetensors_bytes(0)
    (copy / "note.txt").write_text("n")
    project("-C", copy, "add", "note.txt")
    project("-C", copy, "commit", "-m", "two")
    project("-C", copy, "push")
    assert "->" in project("pull").out
    assert project("cat", "HEAD:note.txt").out == "n"
    project("push", "origin", ":v1")
    assert open_remote(url).refs().refs.keys() == {"refs/heads/main"}


def test_push_after_optimize_and_gc(project: Shell, url: str, tmp_path: Path, safetensors_bytes: Maker) -> None:
    project("remote", "add", "origin", url)
    for epoch in range(3):
        project.commit(f"epoch {epoch}", model__safetensors=safetensors_bytes(epoch))
        project("push")
    project("optimize")
    project("gc")
    project.commit("last", model__safetensors=safetensors_bytes(3))
    project("push")
    project("clone", "--full", url, tmp_path / "copy")
    assert project("-C", tmp_path / "copy", "verify", "--json").json["ok"] is True
    with shardfs.open(tmp_path / "copy") as repo:
        for epoch in range(4):
            with repo.read(f"HEAD~{3 - epoch}:model.safetensors") as file:
                assert file.read() == safetensors_bytes(epoch)


def test_a_place_that_was_emptied_gets_everything_again(project: Shell, url: str, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", url)
    project("push")
    _, _, bucket, prefix = url.split("/")
    place = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    obstore.delete(place, [found["path"] for page in obstore.list(place) for found in page])
    project("push")
    project("clone", "--full", url, tmp_path / "copy")
    assert project("-C", tmp_path / "copy", "cat", "HEAD:a.txt").out == "1"


@pytest.mark.fuse
def test_mount_without_a_clone(project: Shell, url: str, tmp_path: Path, safetensors_bytes: Maker) -> None:
    project.commit("one", model__safetensors=safetensors_bytes(0))
    project.commit("two", model__safetensors=safetensors_bytes(1))
    project("remote", "add", "origin", url)
    project("push")
    elsewhere = Shell(tmp_path, project._monkeypatch)
    elsewhere("mount", "models", "--remote", url)
    try:
        found = tmp_path / "models/versions/0001-one/model.safetensors"
        assert found.read_bytes() == safetensors_bytes(0)
        assert (tmp_path / "models/latest/model.safetensors").read_bytes() == safetensors_bytes(1)
    finally:
        elsewhere("umount", "models")


def test_a_public_bucket_is_a_remote_over_http(
    project: Shell, s3: Swift, tmp_path: Path, safetensors_bytes: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.make_bucket("open", public=True)
    project.commit("one", model__safetensors=safetensors_bytes(0))
    project("remote", "add", "origin", "s3://open/demo")
    project("push")
    for key in s3.environment:
        monkeypatch.delenv(key)
    project("clone", f"{address}/demo", tmp_path / "copy")
    with shardfs.open(tmp_path / "copy") as repo, repo.read("HEAD:model.safetensors") as file:
        assert file.read() == safetensors_bytes(0)
    refused = project("push", f"{address}/demo", status=None)
    assert refused.status != 0


def test_what_is_wrong_is_one_line_without_keys(
    project: Shell, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.commit("one", a__txt="1")
    project("remote", "add", "nobucket", "s3://no-such-bucket/x")
    project("remote", "add", "origin", url)
    assert project("push", "nobucket", status=14).err.splitlines() == [
        "shardfs: LIST refs at s3://no-such-bucket/x: there is no such bucket; make it first"
    ]
    assert "no repository at" in project("clone", url, tmp_path / "copy", status=None).err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-key")
    for command in (("push",), ("fetch",), ("clone", url, str(tmp_path / "copy"))):
        err = project(*command, status=14).err
        assert len(err.splitlines()) == 1
        assert "the secret key does not match the access key" in err
        assert "wrong-secret-key" not in err
        assert "test:tester" not in err


def test_a_push_that_is_killed_leaves_what_was_and_goes_on(project: Shell, url: str, tmp_path: Path) -> None:
    before = project.commit("one", a__txt="1")
    project("remote", "add", "origin", url)
    project("push")
    after = project.commit("two", b__bin=os.urandom(25_000_000))
    for number in range(2):
        running = project.start("push")
        threading.Event().wait(0.3 * (number + 1))
        running.kill()
        running.communicate()
        assert open_remote(url).refs().refs["refs/heads/main"].hex() in (before, after)
        project("clone", "-q", "--full", url, tmp_path / f"copy{number}")
        assert project("-C", tmp_path / f"copy{number}", "verify", "--json").json["ok"] is True
    project("push")
    project("clone", "-q", "--full", url, tmp_path / "copy")
    assert project("-C", tmp_path / "copy", "log", "--json").json[0]["commit"] == after
    assert project("-C", tmp_path / "copy", "verify", "--json").json["ok"] is True


def test_eight_processes_move_one_branch(url: str) -> None:
    """Every move that was reported took place, in one line from the first to what the branch is now."""
    open_remote(url).update_ref("refs/tags/start", None, CommitId(bytes(32)))
    command = [sys.executable, "-c", MOVER, url]
    running = [
        subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(PUSHERS)
    ]
    moves: dict[str, str] = {}
    for process in running:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        for line in out.splitlines():
            old, new = line.split()
            assert old not in moves, "two moves started from the same commit"
            moves[old] = new
    now, steps = "-", 0
    while now in moves:
        now, steps = moves[now], steps + 1
    assert steps == len(moves) >= 4
    assert open_remote(url).refs().refs["refs/heads/main"].hex() == now


def test_eight_pushes_at_once(project: Shell, url: str, tmp_path: Path) -> None:
    """To one branch, one of them arrives; to branches of their own, all do. Readers see nothing half done."""
    base = project.commit("base", a__txt="base")
    project("remote", "add", "origin", url)
    project("push")
    copies = [Shell(tmp_path / f"copy{n}", project._monkeypatch) for n in range(PUSHERS)]
    mine: list[str] = []
    for number, copy in enumerate(copies):
        project("clone", "-q", url, copy.folder)
        mine.append(copy.commit(f"by {number}", **{f"file{number}__txt": f"{number}" * 1000}))
        copy("branch", f"own{number}")
    pushes = [copy.start("push", "origin", "main") for copy in copies]
    seen = [watch(url, tmp_path / f"reader{n}") for n in range(2)]
    ends = [(push.communicate(timeout=100)[1], push.returncode) for push in pushes]
    won = [commit for commit, (_, status) in zip(mine, ends, strict=True) if status == 0]
    assert len(won) == 1, ends
    assert {status for _, status in ends} == {0, 15}
    assert all(err.count(b"\n") == 1 for err, status in ends if status)
    assert all(found in (base, won[0]) for found in seen)
    project("pull")
    assert project("log", "--json").json[0]["commit"] == won[0]
    pushes = [copy.start("push", "origin", f"own{n}") for n, copy in enumerate(copies[:4])]
    ends = [(push.communicate(timeout=100)[1], push.returncode) for push in pushes]
    assert {status for _, status in ends} == {0}, ends
    refs = open_remote(url).refs().refs
    assert [refs[f"refs/heads/own{n}"].hex() for n in range(4)] == mine[:4]


def test_a_store_that_compares_and_writes_in_two_steps_takes_no_pushes(project: Shell, s3: Swift) -> None:
    s3.make_bucket("racy")
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", "s3://racy/demo")
    assert "does not keep If-None-Match" in project("push", status=14).err


def watch(url: str, folder: Path) -> str:
    """Clone, and read all that the tip names; returns the tip."""
    with shardfs.clone(url, folder) as repo:
        tip = repo.resolve("HEAD")
        for entry in repo.entries("HEAD"):
            with repo.read("HEAD:" + entry.name.decode()) as file:
                file.read()
        return tip.hex()
