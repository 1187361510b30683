"""Commands mean the same from every directory: paths are relative to where the user is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Shell


@pytest.fixture
def deep(project: Shell) -> Shell:
    """A repository with a commit, seen from a subdirectory."""
    project.commit("one", **{"sub/a__txt": "1", "sub/inner/b__txt": "2", "top__txt": "3"})
    project.folder = project.folder / "sub"
    return project


def test_paths_are_relative_to_the_current_directory(deep: Shell) -> None:
    assert deep("ls", "HEAD", "inner").out.split() == ["b.txt"]
    assert deep("ls", "HEAD", ".").out.split() == ["a.txt", "inner/"]
    assert len(deep("log", "a.txt", "--json").json) == 1
    assert deep("cat", "HEAD:./a.txt").out == "1"
    assert deep("cat", "HEAD:../top.txt").out == "3"
    assert deep("cat", "HEAD:sub/a.txt").out == "1"
    deep.write("a.txt", "changed")
    deep("add", "a.txt", "../top.txt")
    assert [c["path"] for c in deep("status", "--json").json["staged"]] == ["sub/a.txt"]
    deep("reset", "a.txt")
    deep("checkout", "HEAD", "a.txt", "--force")
    assert (deep.folder / "a.txt").read_text() == "1"
    assert deep("diff", "HEAD", "HEAD", ".").out == "no changes\n"
    deep("rm", "a.txt")
    assert not (deep.folder / "a.txt").exists()


def test_globs_are_relative_to_the_current_directory(deep: Shell) -> None:
    deep.write("x.pt", "1")
    deep.write("inner/y.pt", "1")
    deep("add", "*.pt")
    assert [c["path"] for c in deep("status", "--json").json["staged"]] == ["sub/x.pt"]


def test_dash_a_adds_the_whole_work_tree(deep: Shell) -> None:
    deep.write("../top2.txt", "1")
    deep("add", "-A")
    assert [c["path"] for c in deep("status", "--json").json["staged"]] == ["top2.txt"]


def test_relative_remotes_are_remembered_from_the_root(deep: Shell, tmp_path: Path) -> None:
    assert deep("remote", "add", "origin", "../../srv", "--json").json["url"] == str(tmp_path / "srv")
    deep("push")
    deep("clone", "../../srv", "../../copy")
    assert deep("-C", tmp_path / "copy", "ls").out.split() == ["sub/", "top.txt"]


def test_dash_c_makes_paths_relative_to_it(deep: Shell, tmp_path: Path) -> None:
    deep("-C", "..", "checkout", "HEAD", "sub/a.txt", "--into", "../out", cwd=deep.folder)
    assert (tmp_path / "out/sub/a.txt").read_text() == "1"


def test_bare_repository_has_history_but_no_work_tree(shell: Shell, project: Shell, tmp_path: Path) -> None:
    project.commit("one", a__txt="1")
    bare = tmp_path / "bare"
    shell("init", "--bare", bare)
    project("push", status=1)
    project("remote", "add", "origin", bare)
    project("push")
    assert len(shell("log", "--json", cwd=bare).json) == 1
    assert shell("ls", cwd=bare).out.split() == ["a.txt"]
    assert shell("cat", "HEAD:a.txt", cwd=bare).out == "1"
    shell("checkout", "HEAD", "--into", tmp_path / "out", cwd=bare)
    assert "bare" in shell("add", "x", status=2, cwd=bare).err
    shell("status", cwd=bare)
    shell("verify", cwd=bare)
