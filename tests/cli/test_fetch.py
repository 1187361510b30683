"""fetch, pull, clone, prefetch, mirror and remote as a user types them."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import schema
from tests.cli.conftest import Shell
from tests.stores import flip

MIB = 1 << 20
SCHEMAS = schema.load()
Maker = Callable[[int], bytes]


@pytest.fixture
def origin(project: Shell) -> Shell:
    """A repository with two versions on main, one more on a branch, and a tag."""
    project.write("weights/model.bin", os.urandom(2 * MIB))
    project.write("note.txt", "n")
    project("add", "weights", "note.txt")
    project.commit("one", "--tag", "v1")
    project.commit("two", other__bin=os.urandom(MIB))
    project("switch", "-q", "-c", "exp/one")
    project.commit("three", third__bin=os.urandom(MIB))
    project("switch", "-q", "main")
    return project


@pytest.fixture
def clone(origin: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a lazy clone."""
    origin("clone", "-q", origin.folder / ".shardfs", tmp_path / "clone")
    return Shell(tmp_path / "clone", monkeypatch)


def follows(name: str, shell: Shell, *line: str | Path, status: int = 0) -> object:
    document = shell(*line, "--json", status=status).json
    assert schema.problems(SCHEMAS[name], document) == []
    return document


def _offline(shell: Shell, *line: str) -> int:
    return shell.process(*line, status=None, SHARDFS_OFFLINE="1", SHARDFS_CACHE_DIR="/dev/null/none").status


def test_a_dry_run_tells_and_changes_nothing(origin: Shell, clone: Shell, tmp_path: Path) -> None:
    plan = follows("fetch --dry-run", clone, "clone", origin.folder / ".shardfs", tmp_path / "x", "--full", "--dry-run")
    assert not (tmp_path / "x").exists()
    assert isinstance(plan, dict)
    assert plan["bytes"] == sum(path.stat().st_size for path in (origin.folder / ".shardfs/packs").rglob("*.pack"))
    assert {move["ref"] for move in plan["moves"]} >= {"refs/remotes/origin/main", "refs/tags/v1"}
    for some in (["--filter", "path=weights"], ["--full", "--branch", "main"]):
        assert "contents that a filter picks" in clone("clone", origin.folder / ".shardfs", "x", "--dry-run", *some).out
    new = origin.commit("four", note__txt="m")
    assert "would come: 2 packs, " in clone("fetch", "--dry-run").out
    assert "origin/main" in clone("pull", "--dry-run").out
    assert "nothing new" not in clone("fetch").out
    assert clone("log", "origin/main", "--json").json[0]["commit"] == new
    assert clone("fetch", "--dry-run").out == "from origin would come: 0 packs, 0 B\n"


def test_contents_for_good(clone: Shell) -> None:
    assert "write --full" in clone("fetch", "v1:weights", status=2).err
    planned = clone("fetch", "--full", "v1:weights", "--dry-run", "--json").json
    assert _offline(clone, "cat", "v1:weights/model.bin") == 14
    done = follows("fetch", clone, "fetch", "--full", "origin", "v1:weights")
    assert isinstance(done, dict)
    assert 2 * MIB <= done["contents_bytes"] == planned["contents_bytes"] < 2 * MIB + 10_000
    assert _offline(clone, "cat", "v1:weights/model.bin") == 0
    assert _offline(clone, "cat", "HEAD:other.bin") == 14
    assert clone("fetch", "--full", "v1:weights").out == "nothing new at origin\n"
    assert clone("fetch", "--full", "v1").out.startswith("from origin: 1 chunk, 1 B, copied into")
    assert "unknown revision 'orgin'" in clone("fetch", "--full", "orgin", status=1).err
    assert "needs a REV" in clone("fetch", "--full", "--tensors", "*", status=2).err
    assert "--all takes no remote" in clone("fetch", "--all", "origin", status=2).err
    assert clone("verify").status == 0


def test_prefetch_and_check(clone: Shell) -> None:
    clone("cat", "HEAD:note.txt")
    missing = clone("prefetch", "HEAD", "--check", status=1).out.splitlines()
    assert [line.split(":")[0] for line in missing] == ["other.bin", "weights/model.bin"]
    assert all("they are at origin" in line for line in missing)
    follows("prefetch --check", clone, "prefetch", "HEAD", "--check", status=1)
    follows("prefetch", clone, "prefetch", "HEAD", "--dry-run")
    assert re.fullmatch(
        r"HEAD: 3 files, 3\.1 MB; would fetch 3\.1 MB in \d+ chunks\n", clone("prefetch", "HEAD", "--dry-run").out
    )
    assert "; fetched 3.1 MB in" in clone("prefetch", "HEAD").out
    assert clone("prefetch", "HEAD").out == "HEAD: 3 files, 3.1 MB; nothing to fetch\n"
    assert clone("prefetch", "HEAD", "--check").out == "HEAD: all of it can be read without a remote\n"
    clone("--offline", "export", "HEAD", clone.folder.parent / "exported")


def test_tensors_by_name(project: Shell, safetensors_bytes: Maker, tmp_path: Path) -> None:
    project.commit("first", model__safetensors=safetensors_bytes(0))
    project("clone", "-q", project.folder / ".shardfs", tmp_path / "clone")
    found = project("-C", tmp_path / "clone", "prefetch", "HEAD", "--tensors", "layer.[12].*", "--json").json
    assert (found["tensors"], found["files"]) == (2, 1)
    # Of half a million. Less, or nothing, when the cache has what came along with the header already.
    assert found["fetched_bytes"] < 300_000
    assert found["bytes"] > 100_000
    line = ("prefetch", "HEAD", "--tensors", "layer.[12].*")
    assert project(*line).out == "HEAD: 2 tensors in 1 file, 131.1 KB; nothing to fetch\n"
    assert "no tensor is named 'nothing'" in project("prefetch", "HEAD", "--tensors", "nothing", status=1).err
    kept = project("-C", tmp_path / "clone", "fetch", "--full", "HEAD:", "--tensors", "layer.3.*", "--json").json
    assert 50_000 < kept["contents_bytes"] < 300_000


def test_a_clone_of_a_part_stays_one(origin: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin(
        "clone", "-q", origin.folder / ".shardfs", tmp_path / "part", "--branch", "exp/one", "--filter", "path=weights"
    )
    part = Shell(tmp_path / "part", monkeypatch)
    assert part("status", "--json").json["branch"] == "exp/one"
    assert _offline(part, "cat", "HEAD:weights/model.bin") == 0
    assert _offline(part, "cat", "HEAD:other.bin") == 14
    assert "origin/main" not in part("branch", "--all", "--json", status=None).out
    origin("switch", "-q", "exp/one")
    origin.write("weights/new.bin", os.urandom(MIB))
    origin("add", "weights/new.bin")
    origin.commit("five")
    origin("switch", "-q", "main")
    origin.commit("six", note__txt="x")
    assert "->" in part("pull").out
    assert _offline(part, "cat", "HEAD:weights/new.bin") == 0
    assert part("log", "origin/main", status=1).err
    assert (
        "no branch"
        in origin("clone", origin.folder / ".shardfs", tmp_path / "none", "--branch", "nothing", status=1).err
    )
    assert not (tmp_path / "none").exists()
    assert "not a filter" in origin("clone", origin.folder, tmp_path / "none", "--filter", "depth=1", status=2).err


def test_small_files_now_the_rest_when_it_is_read(
    origin: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin("clone", "-q", origin.folder / ".shardfs", tmp_path / "part", "--filter", "size<1K")
    part = Shell(tmp_path / "part", monkeypatch)
    assert _offline(part, "cat", "HEAD:note.txt") == 0
    assert _offline(part, "cat", "HEAD:other.bin") == 14


def test_remotes_have_an_order_and_names(origin: Shell, clone: Shell, tmp_path: Path) -> None:
    clone("clone", "-q", "--full", origin.folder / ".shardfs", tmp_path / "lan")
    clone("remote", "add", "lan", tmp_path / "lan" / ".shardfs", "--prefer")
    assert [remote["name"] for remote in clone("remote", "list", "--json").json] == ["lan", "origin"]
    follows("remote prefer", clone, "remote", "prefer", "origin")
    follows("remote rename", clone, "remote", "rename", "lan", "peer")
    assert [remote["name"] for remote in clone("remote", "list", "--json").json] == ["origin", "peer"]
    assert "no remote 'lan'" in clone("remote", "set-url", "lan", "/x", status=1).err
    clone("fetch", "peer")
    clone("remote", "rename", "peer", "lan")
    assert clone("log", "lan/main", "--json").json
    assert clone("log", "peer/main", status=1).err
    assert clone("fetch", "lan").out == "nothing new at lan\n"
    follows("remote set-url", clone, "remote", "set-url", "lan", str(tmp_path / "moved"))
    assert clone("remote", "show", "lan", status=14).out.splitlines()[1].startswith("  cannot be used: ")
    follows("remote show", clone, "remote", "show", "lan", status=14)


def test_all_remotes_are_fetched_though_one_fails(origin: Shell, clone: Shell, tmp_path: Path) -> None:
    clone("remote", "add", "gone", tmp_path / "gone", "--prefer")
    origin.commit("four", note__txt="m")
    done = clone("fetch", "--all", status=10)
    assert "gone" in done.err
    assert "origin/main" in done.out
    [document] = clone("fetch", "--all", "--json", status=10).json
    assert document["remote"] == "origin"


def test_show_says_how_far_branches_are(origin: Shell, clone: Shell) -> None:
    assert "the same here" in clone("remote", "show").out
    origin.commit("four", note__txt="m")
    assert "moved, `shardfs fetch` tells how far" in clone("remote", "show").out
    clone.commit("mine", mine__txt="1")
    clone("fetch")
    shown = clone("remote", "show", "origin").out
    assert "here 1 commit ahead, 1 commit behind" in shown
    state = follows("remote show", clone, "remote", "show")
    assert isinstance(state, dict)
    assert (state["problem"], state["unknown_packs"], state["tags"]) == (None, 0, 1)


def test_pull_from_where_the_branch_came(origin: Shell, clone: Shell, tmp_path: Path) -> None:
    clone("remote", "rename", "origin", "source")
    clone("remote", "add", "origin", tmp_path / "nothing")
    new = origin.commit("four", note__txt="m")
    assert clone("pull", "--json").json == {
        "remote": "source",
        "branch": "main",
        "old": origin.process("log", "--json").json[1]["commit"],
        "new": new,
    }


def test_a_mirror_is_served_and_follows(origin: Shell, tmp_path: Path) -> None:
    store, target = origin.folder / ".shardfs", tmp_path / "mirror"
    follows("mirror", origin, "mirror", store, target)
    assert origin("mirror", store, target).out == "up to date\n"
    origin("branch", "-D", "exp/one")
    new = origin.commit("four", note__txt="m")
    origin("tag", "--force", "v1", "HEAD")
    origin("mirror", store, target)
    origin("clone", "-q", "--full", target, tmp_path / "copy")
    log = origin("-C", tmp_path / "copy", "log", "--json").json
    assert log[0]["commit"] == new
    assert origin("-C", tmp_path / "copy", "verify").status == 0
    assert origin("-C", tmp_path / "copy", "show", "v1", "--json").json["commit"] == new
    assert "exp/one" not in (target / "info/refs").read_text()
    assert "is neither an empty directory nor a mirror" in origin("mirror", store, origin.folder, status=15).err
    assert "is no mirror of" in origin("mirror", tmp_path / "copy", target, status=15).err
    origin("mirror", tmp_path / "nothing", tmp_path / "none", status=10)
    assert not (tmp_path / "none").exists()


def test_a_mirror_that_follows_goes_on_after_failures(origin: Shell, tmp_path: Path) -> None:
    store, away, target = origin.folder / ".shardfs", tmp_path / "away", tmp_path / "mirror"
    running = origin.start("mirror", store, target, "--interval", "0.2s")
    assert running.stdout is not None
    assert running.stderr is not None
    try:
        assert b"pack" in running.stdout.readline()
        store.rename(away)
        assert b"no repository at" in running.stderr.readline()
        away.rename(store)
        new = origin.commit("four", note__txt="m")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if new in (target / "refs/heads/main").read_text():
                break
            time.sleep(0.05)
        assert new in (target / "refs/heads/main").read_text()
    finally:
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in err


def test_damage_of_one_branch_stops_no_other(origin: Shell, clone: Shell, tmp_path: Path) -> None:
    store, target = origin.folder / ".shardfs", tmp_path / "mirror"
    origin("switch", "-q", "exp/one")
    bad = origin.commit("more", fourth__bin=os.urandom(MIB))
    large = [path for path in (store / "packs").rglob("*.pack") if path.stat().st_size > MIB]
    pack = max(large, key=lambda path: path.stat().st_mtime_ns)
    flip(pack, 5000)
    origin("switch", "-q", "main")
    new = origin.commit("sound", fifth__bin=os.urandom(MIB))
    done = clone("fetch", "--full", status=13)
    assert len(re.findall(r"^shardfs: chunk \w{12} has no good copy: .* at origin", done.err, re.MULTILINE)) == 1
    assert new[:12] in done.out
    assert clone("prefetch", "origin/main", "--check").status == 0
    assert follows("fetch", clone, "fetch", "--full", status=13)["lost"]  # type: ignore[index]
    done = origin("mirror", store, target, status=13)
    assert "chunk" in done.err
    assert "exp/one is not complete" in done.err
    assert (target / "refs/heads/main").read_text().strip() == new
    assert not (target / "refs/heads/exp").exists()
    flip(pack, 5000)
    clone("fetch", "--full")
    origin("mirror", store, target)
    assert (target / "refs/heads/exp/one").read_text().strip() == bad
    assert origin("-C", target, "verify").status == 0
