"""The main job on one machine, as transcripts: from an empty directory to versions and back to plain files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Shell

Maker = Callable[[int], bytes]


def test_first_steps_as_a_user_types_them(shell: Shell, safetensors_bytes: Maker) -> None:
    shell.write("weights/model.safetensors", safetensors_bytes(0))
    assert "initialized" in shell.process("init").out
    assert "weights/" in shell.process("status").out
    assert "1 file added" in shell.process("add", "weights").out
    assert "A  weights/model.safetensors" in shell.process("status").out
    assert "[main, first commit]" in shell.process("commit", "-m", "initial", "--meta", "epoch=0", "--tag", "v1").out
    assert "nothing to commit" in shell.process("status").out
    told = shell.process("log").out
    assert "(HEAD -> main, tag: v1)" in told
    assert "epoch=0" in told
    assert "    initial" in told


def test_second_version_and_its_difference(project: Shell, safetensors_bytes: Maker) -> None:
    first = project.commit("one", model__safetensors=safetensors_bytes(0), note__txt="a")
    project.write("new.txt", "new")
    project("add", "new.txt")
    project.commit("two", model__safetensors=safetensors_bytes(1))
    told = project("diff", first[:12], "HEAD", "--stat").out
    assert "M  model.safetensors" in told
    assert "A  new.txt" in told
    assert "note.txt" not in told
    assert "2 files changed: 1 added, 1 modified" in told
    changes = project("diff", "HEAD~1", "HEAD", "--stat", "--json").json["changes"]
    assert changes[0]["shared_bytes"] >= 7 * 64 * 1024


def test_show_tells_message_metadata_and_changes(project: Shell, safetensors_bytes: Maker) -> None:
    project.write("train.log", "loss 0.5\n")
    project.commit(
        "subject", "-m", "body", "--meta", "lr=5e-5", "--log-file", "train.log", model__safetensors=safetensors_bytes(0)
    )
    told = project("show").out
    assert "    subject\n\n    body\n" in told
    assert "lr=5e-05" in told
    assert '"parameters": 131072' in told
    assert "attached: train.log" in told
    assert "A  model.safetensors" in told


def test_ls_lists_names_details_and_everything_below(project: Shell) -> None:
    project.write("run.sh", "x").chmod(0o755)
    (project.folder / "link").symlink_to("run.sh")
    project("add", "run.sh", "link")
    project.commit("one", **{"a/b/c__txt": "123"})
    assert project("ls").out.split() == ["a/", "link", "run.sh"]
    assert project("ls", "HEAD", "a/b").out.split() == ["c.txt"]
    assert project("ls", "-R").out.split() == ["a/", "a/b/", "a/b/c.txt", "link", "run.sh"]
    assert project("ls", "-R", "HEAD", "a").out.split() == ["b/", "b/c.txt"]
    assert project("ls", "HEAD", "a/b/c.txt").out.split() == ["a/b/c.txt"]
    detailed = project("ls", "-l").out.splitlines()
    assert detailed[1].startswith("lrwx")
    assert detailed[1].endswith("link -> run.sh")
    assert detailed[2].split() == ["-rwx", "1", "B", "run.sh"]


def test_cat_writes_the_bytes_as_they_are(project: Shell) -> None:
    data = os.urandom(3_000_000)
    project.commit("one", data__bin=data)
    project.write("data.bin", "other")
    done = project.start("cat", "HEAD:data.bin")
    assert done.communicate()[0] == data
    assert done.returncode == 0


def test_checkout_restores_files_and_refuses_to_overwrite_work(project: Shell) -> None:
    project.commit("one", a__txt="1", b__txt="1")
    project.commit("two", a__txt="2")
    project("checkout", "HEAD~1", "a.txt")
    assert (project.folder / "a.txt").read_text() == "1"
    project.write("a.txt", "mine")
    assert "a.txt" in project("checkout", "HEAD", "a.txt", status=15).err
    assert (project.folder / "a.txt").read_text() == "mine"
    project("checkout", "HEAD", "a.txt", "--force")
    assert (project.folder / "a.txt").read_text() == "2"


def test_checkout_into_another_directory(project: Shell, tmp_path: Path) -> None:
    project.commit("one", **{"w/a__txt": "1", "b__txt": "2"})
    project("checkout", "HEAD", "w/a.txt", "--into", "../out")
    assert (tmp_path / "out/w/a.txt").read_text() == "1"
    assert not (tmp_path / "out/b.txt").exists()


def test_export_then_import_is_the_same_tree(project: Shell, tmp_path: Path) -> None:
    project.write("run.sh", "x").chmod(0o755)
    (project.folder / "link").symlink_to("run.sh")
    project("add", "run.sh", "link")
    id_ = project.commit("one", **{"w/a__txt": "1"})
    project("export", id_[:8], tmp_path / "out")
    assert (tmp_path / "out/run.sh").stat().st_mode & 0o100
    assert (tmp_path / "out/link").readlink() == Path("run.sh")
    project("rm", "--keep", "w/a.txt")
    project.commit("two")
    imported = project("import", tmp_path / "out", "-m", "three", "--json").json
    assert imported["tree"] == project("show", id_, "--json").json["tree"]


def test_rm_stops_tracking_and_reset_takes_it_back(project: Shell) -> None:
    project.commit("one", a__txt="1", b__txt="2")
    assert "removed a.txt" in project("rm", "a.txt").out
    assert not (project.folder / "a.txt").exists()
    project("rm", "--keep", "b.txt")
    assert (project.folder / "b.txt").exists()
    assert len(project("status", "--json").json["staged"]) == 2
    project("reset", "a.txt")
    assert [c["path"] for c in project("status", "--json").json["staged"]] == ["b.txt"]
    project("reset")
    assert project("status", "--json").json["staged"] == []


def test_commit_all_takes_changed_and_missing_but_not_new_files(project: Shell) -> None:
    project.commit("one", a__txt="1", b__txt="2")
    project.write("a.txt", "changed")
    (project.folder / "b.txt").unlink()
    project.write("new.txt", "new")
    project("commit", "-a", "-m", "two")
    assert project("ls").out.split() == ["a.txt"]
    assert project("cat", "HEAD:a.txt").out == "changed"
    project("commit", "-a", "-m", "three", status=1)
    assert project("ls").out.split() == ["a.txt"]


def test_ignored_files_are_not_added(project: Shell) -> None:
    project.write(".shardfsignore", "*.tmp\n")
    project.write("a.tmp", "x")
    project.commit("one", a__txt="1")
    project("add", "-A")
    project.commit("two")
    assert project("ls").out.split() == [".shardfsignore", "a.txt"]


def test_branches_and_tags(project: Shell) -> None:
    first = project.commit("one", a__txt="1")
    project("branch", "exp")
    project("switch", "exp")
    second = project.commit("two", a__txt="2")
    assert project("branch").out.splitlines() == [f"* exp   {second[:12]}", f"  main  {first[:12]}"]
    project("switch", "main")
    assert (project.folder / "a.txt").read_text() == "1"
    assert "exp" in project("branch", "-d", "exp", status=15).err
    project("branch", "-D", "exp")
    project("tag", "best", second[:10])
    assert project("show", "best", "--json").json["commit"] == second
    project("tag", "best", first[:10], status=15)
    project("tag", "-f", "best", first[:10])
    project("tag", "-d", "best")
    assert project("tag").out == ""
    project("switch", "--detach", second)
    (project.folder / "a.txt").write_text("changed")
    assert project("status").out.splitlines()[1:] == ["no branch, no staging to compare with"]


def test_reflog_names_what_a_branch_lost(project: Shell) -> None:
    project.commit("one", a__txt="1")
    lost = project.commit("two", a__txt="2")
    assert project("reflog", "--json").json[0]["new"] == lost
    assert lost[:12] in project("reflog").out


def test_log_limits_paths_and_lines(project: Shell) -> None:
    first = project.commit("one", a__txt="1", b__txt="1")
    second = project.commit("two", a__txt="2")
    assert [line.split()[-1] for line in project("log", "--oneline").out.splitlines()] == ["two", "one"]
    assert [c["commit"] for c in project("log", "-n", "1", "--json").json] == [second]
    assert [c["commit"] for c in project("log", "b.txt", "--json").json] == [first]
    assert [c["commit"] for c in project("log", "HEAD", "b.txt", "--json").json] == [first]
    assert project("log", "-n", "0", "--json").json == []


def test_stats_verify_and_gc_on_a_sound_repository(project: Shell, safetensors_bytes: Maker) -> None:
    project.commit("one", model__safetensors=safetensors_bytes(0))
    project.commit("two", model__safetensors=safetensors_bytes(1))
    stats = project("stats", "--json").json
    assert stats["logical_bytes"] == 2 * len(safetensors_bytes(0))
    assert 0 < stats["stored_bytes"] < stats["logical_bytes"]
    assert project("verify", "--json").json["ok"] is True
    project("gc", "--dry-run")
    project("gc", "--grace", "0")
    assert project("verify", "--json").json["ok"] is True
    project("doctor")
    assert "in all versions" in project("stats").out


def test_message_from_a_file_and_from_standard_input(project: Shell) -> None:
    project.write("message.txt", "from a file\n\nbody\n")
    project.write("a.txt", "1")
    project("add", "a.txt")
    project("commit", "-F", "message.txt")
    assert project("log", "--json").json[0]["message"] == "from a file\n\nbody"
    project.process("commit", "-F", "-", "--allow-empty", stdin=b"from a pipe\n")
    assert project("log", "--json").json[0]["message"] == "from a pipe"


def test_metadata_from_options_and_file(project: Shell) -> None:
    project.write("meta.json", '{"lr": 1, "nested": {"a": [1, 2]}}')
    project.write("data/train/x.bin", b"12345")
    project.commit(
        "one", "--meta-file", "meta.json", "--meta", "lr=5e-5", "--meta", "name=a=b",
        "--dataset", "train=data/train", "--dataset", "meta.json", a__txt="1",
    )  # fmt: skip
    commit = project("show", "--json").json
    assert commit["meta"] == {"lr": 5e-5, "nested": {"a": [1, 2]}, "name": "a=b"}
    assert commit["auto"]["datasets"]["train"]["bytes"] == 5
    assert commit["auto"]["datasets"]["meta.json"]["files"] == 1


def test_config_set_get_list(project: Shell) -> None:
    project("config", "set", "user.author", "Ada <ada@example.org>")
    assert project("config", "get", "user.author").out == "Ada <ada@example.org>\n"
    project.commit("one", a__txt="1")
    assert project("log", "--json").json[0]["author"] == "Ada <ada@example.org>"
    assert "user.author" in project("config", "list").out
    assert "no.such" in project("config", "get", "no.such", status=2).err


@pytest.mark.parametrize("argv", [["-C", "sub", "status"], ["-C", "..", "-C", "project/sub", "status"]])
def test_directory_option_is_like_changing_directory(project: Shell, argv: list[str]) -> None:
    (project.folder / "sub").mkdir()
    assert "on branch main" in project(*argv).out


def test_program_runs_as_a_module(shell: Shell) -> None:
    assert PROGRAM[1:] == ["-m", "shardfs_cli"]
    assert shell.process("--version").out.startswith("shardfs ")
