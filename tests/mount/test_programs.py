"""Real programs read a mounted commit byte-exactly, and write to staging."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import Mounted, mounting, private_folders, shell

PROGRAMS = Path(__file__).with_name("programs.py")
pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(300)]

_TREE = ast.parse(PROGRAMS.read_text())
READERS = [
    n.name
    for n in _TREE.body
    if isinstance(n, ast.FunctionDef) and any(isinstance(d, ast.Name) and d.id == "check" for d in n.decorator_list)
]
WRITERS = ["torch_save", "safetensors_save_file", "numpy_memmap", "transformers_save_pretrained"]


def run(*arguments: str | Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, PROGRAMS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp("programs")
    project = folder / "project"
    project.mkdir()
    run("make", project)
    os.symlink("model.pt", project / "latest.pt")  # noqa: PTH211 - either
    with private_folders(home), shardfs.init(project) as repo:
        repo.import_directory(project, "all of it")
    with mounting(project, folder / "models", home) as found:
        yield found


@pytest.fixture(scope="module")
def read_results(mounted: Mounted) -> dict[str, str]:
    return run("read", mounted.project, mounted.latest)


@pytest.fixture(scope="module")
def write_results(mounted: Mounted) -> dict[str, str]:
    (mounted.staging / "written").mkdir()
    return run("write", mounted.staging / "written")


@pytest.mark.parametrize("name", READERS)
def test_reading_a_commit(read_results: dict[str, str], name: str) -> None:
    assert read_results[name] == "ok", read_results[name]


@pytest.mark.parametrize("name", WRITERS)
def test_writing_to_staging(write_results: dict[str, str], name: str) -> None:
    assert write_results[name] == "ok", write_results[name]


def test_what_was_written_is_committed_byte_by_byte(mounted: Mounted, write_results: dict[str, str]) -> None:
    assert set(write_results.values()) == {"ok"}
    mounted.commit("written")
    shell(f"diff -r {mounted.staging}/written {mounted.latest}/written", mounted.point)


COPIES = {
    "cp": "cp -a {commit}/. {target}",
    "rsync": "rsync -a --checksum {commit}/ {target}/",
    "tar": "tar -C {commit} -cf - . | tar -C {target} -xf -",
    "find and cat": "cd {commit} && find . -type d -exec mkdir -p {target}/{{}} \\; "
    '&& find . -type f -exec sh -c \'cat "$1" > {target}/"$1"\' _ {{}} \\; && cp -P latest.pt {target}/',
}


@pytest.mark.parametrize("command", COPIES.values(), ids=list(COPIES))
def test_copying_tools(mounted: Mounted, tmp_path: Path, command: str) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    versions = sorted(os.listdir(mounted.point / "versions"))
    commit = (mounted.point / "versions" / versions[0]).resolve()
    shell(command.format(commit=commit, target=target), tmp_path)
    shell(f"chmod -R u+w {target}; diff -r --no-dereference --exclude=.shardfs {mounted.project} {target}", tmp_path)


def test_sha256sum_and_find(mounted: Mounted) -> None:
    listing = "find . -name .shardfs -prune -o -type f -print0 | sort -z | xargs -0 sha256sum"
    assert shell(listing, mounted.project) == shell(listing, (mounted.point / "versions" / "0001-all-of-it").resolve())
    counted = shell("find . -type f -links 1 | wc -l; find . -type l | wc -l", mounted.latest)
    assert counted.split()[1] == "1"


def test_nothing_failed_unexpectedly(mounted: Mounted) -> None:
    assert "EIO" not in mounted.errors()
