"""Bad arguments: one line, a documented status, no traceback, nothing changed."""

from __future__ import annotations

import os

import pytest

from shardfs_cli.exit_status import MEANINGS, ExitStatus
from tests.cli import reference
from tests.cli.conftest import Shell

LEAVES = [name for name, command in reference.all_commands() if not hasattr(command, "commands")]
# The first two stay in front when they are taken, the others can make things anywhere; they have tests of their own.
ELSEWHERE = {"serve", "mount", "init", "clone", "export"}
BAD_TEXT = os.fsdecode(b"caf\xe9")
WORDS = [
    "",
    " ",
    "-",
    "--",
    "..",
    "/",
    "\n",
    "é",
    "\udcff",
    "HEAD",
    "HEAD~99",
    "HEAD^^",
    "a" * 5000,
    "*",
    "[",
    "%s",
    "~",
]


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in ELSEWHERE])
def test_any_words_end_in_one_line(project: Shell, name: str) -> None:
    project.commit("one", a__txt="1")
    for word in WORDS:
        for argv in ([word], [word, word], [word, word, word, word]):
            result = project(*name.split(), *argv, status=None)
            assert result.status in {int(status) for status in MEANINGS}, argv
            if result.status not in (0, 13):
                assert len(result.err.splitlines()) <= 4, (argv, result.err)
                assert result.err.strip().splitlines()[-1].startswith("shardfs: "), (argv, result.err)


@pytest.mark.parametrize("name", ["init", "clone", "export"])
@pytest.mark.parametrize("word", ["", " ", "-", "\n", "é", "\udcff", "a" * 5000, "*", "%s", "a.txt"])
def test_odd_places_are_taken_or_refused_in_one_line(project: Shell, name: str, word: str) -> None:
    project.commit("one", a__txt="1")
    first = {"init": [], "clone": [str(project.folder)], "export": ["HEAD"]}[name]
    for argv in ([*first, word], [word, word]):
        result = project(name, *argv, status=None)
        assert result.status in {int(status) for status in MEANINGS}
        assert result.status == 0 or result.err.splitlines()[-1].startswith("shardfs: ")


@pytest.mark.parametrize("name", LEAVES)
def test_unknown_options_are_usage_errors(project: Shell, name: str) -> None:
    result = project(*name.split(), "--no-such-option", status=2)
    assert "--no-such-option" in result.err


@pytest.mark.parametrize(
    "line",
    [
        "commit", "commit -m", "commit -m x --meta nokey", "commit -m x --dataset =x", "add", "add -A a.txt",
        "log -n -1", "log -n x", "log a b c", "cat a.txt", "cat HEAD:", "branch -d", "branch -d a b", "branch x -a",
        "tag -d", "tag -f", "switch -c -d x", "switch x y", "completion tcsh", "serve --listen nowhere",
        "serve --listen 127.0.0.1:99999", "serve --listen 127.0.0.1:x", "clone http://", "remote add o ftp://x/y",
        "remote add bad/name /tmp/x", "remote nope", "gc --grace -1", "gc --grace x", "-C /nonexistent status",
        "config set no.such 1", "config set cache.size many", "commit -m x -a --branch other", "commit -m x --tag HEAD",
        "tag HEAD", "branch ..", "add ../outside", "checkout HEAD ../outside", "init --initial-branch ..",
    ],
)  # fmt: skip
def test_meaningless_lines_are_usage_errors(project: Shell, line: str) -> None:
    project.commit("one", a__txt="1")
    result = project(*line.split(), status=2)
    assert result.err.splitlines()[-1].startswith("shardfs: ")


@pytest.mark.parametrize(
    "line",
    [
        "show nope", "log nope", "diff nope HEAD", "ls nope", "ls HEAD nope", "cat HEAD:nope", "cat nope:a.txt",
        "cat HEAD:a.txt/b", "checkout nope", "checkout HEAD nope", "export nope out", "import nope -m x", "add nope",
        "add nope/*.pt", "rm nope", "branch x nope", "branch -d nope", "tag x nope", "tag -d nope", "switch nope",
        "push nowhere", "fetch nowhere", "pull nowhere", "remote rm nowhere", "commit -F nope",
        "commit -m x --meta-file nope", "commit -m x --dataset nope --allow-empty",
        "commit -m x --log-file nope --allow-empty", "umount nope",
    ],
)  # fmt: skip
def test_names_of_nothing_are_failures_that_name_it(project: Shell, line: str) -> None:
    project.commit("one", a__txt="1")
    message = project(*line.split(), status=1).err
    assert message.startswith("shardfs: ")
    assert len(message.splitlines()) == 1
    assert any(word in message for word in ("nope", "nowhere", "a.txt")), message


@pytest.mark.parametrize("option", ["-m", "--author", "--meta", "--tag", "--branch"])
def test_text_that_is_not_utf8_is_no_metadata(project: Shell, option: str) -> None:
    value = f"key={BAD_TEXT}" if option == "--meta" else BAD_TEXT
    message = () if option == "-m" else ("-m", "x")
    project("commit", "--allow-empty", *message, option, value, status=2)
    assert project("log", "--json").json == []


def test_author_from_the_environment_that_is_not_utf8(project: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_AUTHOR", BAD_TEXT)
    assert "author" in project("commit", "--allow-empty", "-m", "x", status=2).err


def test_bad_lines_change_nothing(project: Shell) -> None:
    project.commit("one", a__txt="1")
    before = project("log", "--json").out, project("status", "--json").out, project("branch", "--json").out
    for line in ("commit -m x", "commit -m x --tag ..", "branch ..", "switch nope", "reset nope", "rm nope"):
        project(*line.split(), status=None)
    assert (project("log", "--json").out, project("status", "--json").out, project("branch", "--json").out) == before


def test_debug_shows_the_traceback(project: Shell) -> None:
    import click.testing

    from shardfs_cli.main import cli

    done = click.testing.CliRunner().invoke(cli, ["show", "nope", "--debug"])
    assert "Traceback" in done.stderr
    assert done.exit_code == 1


def test_settings_of_the_wrong_form_can_be_mended(project: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    config = project.folder / ".shardfs/config.toml"
    config.write_text(config.read_text() + '[cache]\nsize = "many"\n')
    assert "many" in project("status", status=2).err
    project("config", "set", "cache.size", "1GiB")
    project("status")
    monkeypatch.setenv("SHARDFS_LOCK_WAIT", "soon")
    assert "soon" in project("status", status=2).err


def test_names_that_are_not_utf8_work_everywhere(project: Shell) -> None:
    name = os.fsdecode(b"caf\xe9\n.bin")
    project.write(name, b"x")
    assert "caf\udce9\\x0a.bin" in project.process("status").out
    project.process("add", name)
    project.process("commit", "-m", "one")
    assert project.process("ls", "--json").json[0]["path"] == name
    assert project.process("ls").out == "caf\udce9\\x0a.bin\n"
    assert project.process("cat", f"HEAD:{name}").out == "x"
    assert project.process("log", name, LC_ALL="C").status == 0
    project.process("rm", name)


@pytest.mark.parametrize("command", ["gc --grace", "optimize --grace", "umount --timeout", "mount --deadline"])
def test_numbers_are_numbers(project: Shell, command: str) -> None:
    result = project(*command.split(), "nan", "x", status=int(ExitStatus.USAGE))
    assert "not a number" in result.err
