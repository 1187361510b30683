"""What a commit records by itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

import shardfs
from shardfs.errors import PathNotFoundError, StoreError
from shardfs.formats.manifest import Media
from shardfs.staging import provenance
from shardfs.staging.provenance import code_version, dataset_digest, model_summary
from tests.weights import model, save


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    _git(folder, "init", "-q")
    (folder / "train.py").write_text("print()\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "x")
    return folder


def test_code_that_is_checked_out(code: Path) -> None:
    (code / "sub").mkdir()
    (code / "untracked").touch()
    assert code_version(code / "sub") == {"git": _git(code, "rev-parse", "HEAD"), "dirty": False}
    (code / "train.py").write_text("print(1)\n")
    found = code_version(code)
    assert found is not None
    assert found["dirty"] is True


def test_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_version(tmp_path) is None
    assert code_version(tmp_path / "missing") is None
    _git(tmp_path, "init", "-q")
    assert code_version(tmp_path) is None  # no commit yet
    monkeypatch.setenv("PATH", "/nowhere")
    assert code_version(tmp_path) is None


def test_a_slow_git_is_not_waited_for_and_nothing_is_claimed(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\ncase "$3" in status) exec sleep 60;; esac\necho abc\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_TIMEOUT_S", 0.5)
    assert code_version(code) == {"git": "abc"}


def test_models_are_counted_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MAX_MODELS", 2)
    media = {name: Media("safetensors", "pt", 2, 100) for name in ("b", "a", "c")} | {"d": Media("torch")}
    assert model_summary(media) == {
        "count": 4,
        "tensors": 6,
        "parameters": 300,
        "files": {name: {"format": "safetensors", "framework": "pt", "tensors": 2, "parameters": 100} for name in "ab"},
    }


def test_a_model_with_a_name_that_is_not_utf8_is_committed(tmp_path: Path) -> None:
    with shardfs.init(tmp_path) as repo:
        file = tmp_path / "caf\udce9" / "model.safetensors"
        save(file, model(rows=1))
        repo.add([file])
        repo.commit("a name of Latin-1")
        [name] = repo.commit_of("HEAD")[1].auto["models"]["files"]
    assert name == "caf\\xe9/model.safetensors"


def test_the_digest_of_a_file_is_b3sum(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"1,2\n")
    assert dataset_digest(tmp_path / "data.csv") == {"blake3": blake3(b"1,2\n").hexdigest(), "bytes": 4, "files": 1}


def _dataset(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_the_digest_of_a_directory_is_of_names_and_contents(tmp_path: Path) -> None:
    one = dataset_digest(_dataset(tmp_path / "one", ["b", "a/x", "a.b"]))
    assert (one["files"], one["bytes"]) == (3, 7)
    assert dataset_digest(_dataset(tmp_path / "two", ["a.b", "a/x", "b"])) == one
    lines = "".join(f"{blake3(n.encode()).hexdigest()} {n}\n" for n in ("a.b", "a/x", "b"))
    assert one["blake3"] == blake3(lines.encode()).hexdigest()
    (tmp_path / "two/b").rename(tmp_path / "two/c")
    assert dataset_digest(tmp_path / "two")["blake3"] != one["blake3"]
    (tmp_path / "one/link").symlink_to("b")
    os.mkfifo(tmp_path / "one/pipe")
    assert dataset_digest(tmp_path / "one") == one


def test_datasets_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PathNotFoundError, match="does not exist"):
        dataset_digest(tmp_path / "missing")
    _dataset(tmp_path / "d", ["a", "locked/b"])
    real = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)  # chmod does not stop root
    with pytest.raises(StoreError, match="locked cannot be read"):
        dataset_digest(tmp_path / "d")
