"""Every document that --json prints follows docs/reference/json.md: no member is missing, none is undocumented."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import reference, schema
from tests.cli.conftest import Result, Shell

SCHEMAS = schema.load()
# Commands whose document is printed before they stay in front; checked where they are tested.
ELSEWHERE = {"serve", "mount", "umount", "mounts"}


def follows(name: str, result: Result) -> None:
    """Check one document; it must be the only output."""
    assert schema.problems(SCHEMAS[name], result.json) == []


def test_every_command_has_a_schema() -> None:
    wanted = {name for name, _ in reference.all_commands()} - {"remote", "config", "token"}
    assert wanted <= SCHEMAS.keys()


def test_checker_finds_faults() -> None:
    kind = {"a": "id or null", "b?": ["integer"]}
    assert schema.problems(kind, {"a": None, "b": None}) == []
    assert schema.problems(kind, {"a": "0" * 64, "b": [1]}) == []
    assert len(schema.problems(kind, {"a": "0", "b": [True], "c": 1})) == 3
    assert schema.problems(kind, {"b": []}) == ["$: a is missing"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, safetensors_bytes: Callable[[int], bytes]) -> Iterator[Path]:
    """A repository with two commits, a tag, a branch, a remote, and all kinds of entries and changes."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        project = Shell(folder, patch)
        project("init")
        project.write("train.log", "loss 0.1\n")
        project.write("run.sh", "#!/bin/sh\n").chmod(0o755)
        (folder / "link").symlink_to("weights")
        project("add", "run.sh", "link")
        weights = "weights/model__safetensors"
        project.commit("first", "--meta", "epoch=0", "--tag", "v1", **{weights: safetensors_bytes(0)})
        project.commit("second", "--log-file", "train.log", **{weights: safetensors_bytes(1)})
        project.write("run.sh", "changed")
        project.write("new.bin", b"\0")
        project.write("staged", "x")
        project("add", "staged")
        yield folder


@pytest.fixture
def history(template: Path, shell: Shell) -> Shell:
    """A shell in a copy of the template."""
    shutil.copytree(template, shell.folder, symlinks=True, dirs_exist_ok=True)
    shell("remote", "add", "origin", shell.folder.parent / "srv")
    return shell


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("log", "log"),
        ("log", "log -n 1 --oneline"),
        ("log", "log weights/model.safetensors"),
        ("show", "show"),
        ("show", "show v1"),
        ("diff", "diff v1 HEAD"),
        ("diff", "diff v1 HEAD --stat"),
        ("diff", "diff HEAD HEAD"),
        ("ls", "ls"),
        ("ls", "ls -R v1"),
        ("ls", "ls HEAD weights/model.safetensors"),
        ("cat", "cat HEAD:run.sh"),
        ("cat", "cat HEAD:weights/model.safetensors"),
        ("status", "status"),
        ("reflog", "reflog"),
        ("branch", "branch"),
        ("branch", "branch -a"),
        ("branch NAME", "branch exp v1"),
        ("tag", "tag"),
        ("tag NAME", "tag best"),
        ("tag NAME", "tag -d v1"),
        ("remote list", "remote"),
        ("remote list", "remote list"),
        ("remote add", "remote add other http://127.0.0.1:1/x"),
        ("remote rm", "remote rm origin"),
        ("token create", "token create --root . --name a --repository all --expires 1d"),
        ("token list", "token list --root ."),
        ("switch", "switch -c exp v1"),
        ("switch", "switch --detach v1"),
        ("add", "add new.bin run.sh"),
        ("add", "add -A"),
        ("rm", "rm --keep run.sh"),
        ("reset", "reset"),
        ("commit", "commit -m x --allow-empty --tag t --meta a=1 --author me"),
        ("checkout", "checkout v1 weights --into out"),
        ("export", "export v1 out"),
        ("import", "import weights -m x --branch other"),
        ("push", "push"),
        ("push", "push origin --tags"),
        ("publish", "publish ../www"),
        ("completion", "completion bash"),
        ("verify", "verify"),
        ("gc", "gc --dry-run"),
        ("gc", "gc"),
        ("optimize", "optimize --dry-run"),
        ("optimize", "optimize"),
        ("stats", "stats"),
        ("stats", "stats v1"),
        ("stats", "stats --by codec"),
        ("stats", "stats --by commit --plot stored.svg"),
        ("stats --by file", "stats --by file"),
        ("stats --by tensor", "stats v1 --by tensor"),
        ("doctor", "doctor"),
        ("doctor", "doctor --fix"),
        ("doctor", "doctor --rebuild-index"),
        ("config list", "config list"),
        ("config get", "config get user.author"),
        ("config set", "config set user.author me"),
        ("config unset", "config unset user.author"),
    ],
)
def test_document_follows_its_schema(history: Shell, name: str, line: str) -> None:
    follows(name, history(*line.split(), "--json"))


def test_documents_of_an_empty_repository(shell: Shell) -> None:
    follows("init", shell("init", "--json"))
    for name in ("log", "status", "branch", "tag", "reflog", "verify", "stats", "gc", "optimize"):
        follows(name, shell(name, "--json"))
    assert shell("log", "--json").json == []
    assert shell("status", "--json").json["head"] is None


def test_documents_between_two_repositories(history: Shell, tmp_path: Path) -> None:
    history("push")
    follows("clone", history("clone", "--json", tmp_path / "srv", tmp_path / "copy"))
    history.commit("third", new__txt="3")
    history("push")
    copy = tmp_path / "copy"
    follows("fetch", history("fetch", "--json", cwd=copy))
    pulled = history("pull", "--json", cwd=copy)
    follows("pull", pulled)
    assert pulled.json["new"] == history("log", "--json").json[0]["commit"]
    follows("pull", history("pull", "--json", cwd=copy))


def test_documents_of_a_publication(history: Shell, tmp_path: Path) -> None:
    www = tmp_path / "www"
    history("publish", www)
    again = history("publish", www, "--json")
    follows("publish", again)
    assert again.json["published"][0]["changed"] is False
    whole = history("publish", "--check", www, "--json")
    follows("publish --check", whole)
    assert whole.json["published"][0]["problems"] == []
    next((www / "packs").glob("*/*.pack")).unlink()
    broken = history("publish", "--check", www, "--json", status=13)
    follows("publish --check", broken)
    assert broken.json["published"][0]["problems"]


def test_json_may_stand_before_the_command(history: Shell) -> None:
    assert history("--json", "log").out == history("log", "--json").out
    assert history("--json", "remote", "list").out == history("remote", "list", "--json").out


def test_error_is_one_document_and_one_line(history: Shell) -> None:
    result = history("show", "nope", "--json", status=1)
    follows("error", result)
    assert result.json["kind"] == "RevisionNotFoundError"
    assert result.json["exit"] == 1
    assert len(result.err.splitlines()) == 1


def test_usage_error_is_a_document_too(history: Shell) -> None:
    result = history("log", "--json", "--no-such-option", status=2)
    follows("error", result)
    assert result.json["exit"] == 2


def test_log_is_newest_first_with_parents_and_metadata(history: Shell) -> None:
    newest, oldest = history("log", "--json").json
    assert newest["parents"] == [oldest["commit"]]
    assert oldest["parents"] == []
    assert (newest["message"], oldest["message"]) == ("second", "first")
    assert oldest["meta"] == {"epoch": 0}
    assert oldest["auto"]["models"]["tensors"] == 8


def test_cat_json_gives_the_bytes_back(history: Shell, safetensors_bytes: Callable[[int], bytes]) -> None:
    import base64

    document = history("cat", "HEAD:weights/model.safetensors", "--json").json
    assert base64.b64decode(document["content"]) == safetensors_bytes(1)
