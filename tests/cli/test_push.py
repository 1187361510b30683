"""`shardfs push` beyond one branch to one remote."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from shardfs.store.store import Store
from shardfs_cli.progress import pace
from tests.cli import schema
from tests.cli.conftest import Shell


@pytest.fixture
def origin(project: Shell, tmp_path: Path) -> Path:
    """A remote in a folder, which does not exist yet, of a project with one commit."""
    project.commit("one", a__txt="1")
    project("remote", "add", "origin", tmp_path / "origin")
    return tmp_path / "origin"


def refs(folder: Path) -> dict[str, str]:
    store = Store(folder)
    found = {
        name: commit.hex()
        for name, commit in {**store.refs.list("refs/heads/"), **store.refs.list("refs/tags/")}.items()
    }
    store.close()
    return found


def test_a_dry_run_is_what_the_push_does_then(project: Shell, origin: Path) -> None:
    plan = project("push", "--dry-run", "--json").json
    assert schema.problems(schema.load()["push"], plan) == []
    assert not origin.exists()
    assert f"would send {plan['bytes']} bytes" in project("push", "--dry-run").out
    done = project("push", "--json").json
    assert {**plan, "dry_run": False} == done
    assert done["bytes"] == sum(path.stat().st_size for path in origin.rglob("*.pack"))


def test_a_dry_run_that_would_be_refused_says_why(project: Shell, origin: Path, tmp_path: Path) -> None:
    project("push")
    project("clone", origin, tmp_path / "copy")
    other = Shell(tmp_path / "copy", project._monkeypatch)
    other.commit("theirs", b__txt="1")
    other("push")
    project.commit("mine", c__txt="1")
    result = project("push", "--dry-run", status=15)
    assert "rejected" in result.out
    assert "shardfs pull" in result.out
    assert schema.problems(schema.load()["push"], project("push", "--dry-run", "--json", status=15).json) == []


def test_every_remote_gets_its_push_though_one_is_down(project: Shell, origin: Path, tmp_path: Path) -> None:
    project("remote", "add", "broken", "http://127.0.0.1:9/demo")
    project("remote", "add", "backup", tmp_path / "backup")
    result = project("push", "--all", status=14)
    assert [line for line in result.err.splitlines() if "broken" in line] == result.err.splitlines()
    assert refs(origin) == refs(tmp_path / "backup") != {}
    project.commit("two", a__txt="2")
    documents = project("push", "--all", "main", "--json", status=14).json
    assert schema.problems(schema.load()["push --all"], documents) == []
    assert [d["remote"] for d in documents if d["error"]] == ["broken"]
    project("remote", "rm", "broken")
    project("push", "--all")


def test_branches_by_pattern(project: Shell, origin: Path) -> None:
    for name in ("exp/one", "exp/two", "other"):
        project("branch", name)
    project("push", "origin", "exp/*")
    assert refs(origin).keys() == {"refs/heads/exp/one", "refs/heads/exp/two"}
    project("push", "origin", ":exp/one")
    assert refs(origin).keys() == {"refs/heads/exp/two"}
    assert "like 'none*'" in project("push", "origin", "none*", status=1).err


def test_a_mirror_has_what_is_here_and_nothing_else(project: Shell, origin: Path) -> None:
    project("branch", "gone")
    project("tag", "v1")
    project("push", "--mirror")
    assert refs(origin).keys() == {"refs/heads/main", "refs/heads/gone", "refs/tags/v1"}
    project("branch", "--delete", "gone")
    project.commit("two", a__txt="2")
    plan = project("push", "--mirror", "--dry-run", "--json").json
    assert {move["ref"] for move in plan["moved"] if move["new"] is None} == {"refs/heads/gone"}
    project("push", "--mirror")
    assert refs(origin).keys() == {"refs/heads/main", "refs/tags/v1"}
    project("push", "origin", "main", "--mirror", status=2)


def test_the_remote_that_nobody_names(project: Shell, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    assert "remote add origin" in project("push", status=1).err
    project("remote", "add", "only", tmp_path / "only")
    assert project("push", "--json").json["remote"] == "only"
    project("remote", "add", "second", tmp_path / "second")
    assert "only, second" in project("push", status=2).err
    project("config", "set", "remote.default", "second")
    assert project("push", "--json").json["remote"] == "second"


def test_a_branch_in_the_place_of_the_remote_is_told(project: Shell, origin: Path) -> None:
    for branch in ("main", ":main", "exp/*"):
        assert f"`shardfs push origin {branch}`" in project("push", branch, status=1).err
    assert "`shardfs remote add elsewhere URL`" in project("push", "elsewhere", status=1).err


def test_a_push_can_say_where_the_branch_is_pulled_from(project: Shell, origin: Path, tmp_path: Path) -> None:
    project("remote", "add", "backup", tmp_path / "backup")
    project("push", "backup", "-u")
    assert 'remote = "backup"' in (project.folder / ".shardfs/config.toml").read_text()


@pytest.mark.network
def test_an_interrupted_push_ends_at_once_and_leaves_nothing(project: Shell, tmp_path: Path) -> None:
    from tests.faults.relay import relaying
    from tests.serving import serving

    project.commit("one", model=os.urandom(20 << 20))
    with serving(tmp_path / "srv") as server, relaying(server.url) as relay:
        relay.stops_after = 5 << 20
        project("remote", "add", "origin", f"{relay.url}/demo")
        running = project.start("push", stderr=subprocess.PIPE)
        assert relay.stopped.wait(60)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=10)
        assert running.returncode == 130, errors
        assert b"Traceback" not in errors
        assert list((project.folder / ".shardfs/tmp").iterdir()) == []


def test_the_bar_says_how_far_how_fast_and_how_long() -> None:
    assert pace(3_200_000_000, 9_100_000_000, 45e6) == "3.2 of 9.1 GB, 45.0 MB/s, 2 min left"
    assert pace(900_000, 9_100_000_000, None) == "900.0 KB of 9.1 GB"
    assert pace(5, None, 2.0) == "5 B, 2 B/s"
    assert pace(7, 7, 2.0) == "7 of 7 B, 2 B/s"
