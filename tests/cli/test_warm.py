"""warm, pin, unpin, evict as a user types them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli import schema
from tests.cli.conftest import Shell

MIB = 1 << 20
SCHEMAS = schema.load()


@pytest.fixture
def clone(project: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a lazy clone of a repository with 3 MB in two files."""
    project.commit("first", "--tag", "v1", weights__bin=os.urandom(2_000_000), other__bin=os.urandom(1_000_000))
    project("clone", "-q", project.folder / ".shardfs", tmp_path / "clone")
    return Shell(tmp_path / "clone", monkeypatch)


def test_transcript(clone: Shell) -> None:
    assert clone("warm", "v1", "--check").out == (
        "v1: 2 files, 3.0 MB\n"
        "  in packs here         0 B    0%\n"
        "  more in the cache     0 B    0%\n"
        "  plain files           0 B    0%\n"
        "  only at a remote   3.0 MB  100%\n"
    )
    assert clone("warm", "v1:weights.bin").out == "v1:weights.bin: 1 file, 2.0 MB; fetched 2.0 MB, 1 plain file made\n"
    assert clone("warm", "v1:weights.bin").out == "v1:weights.bin: 1 file, 2.0 MB; nothing to fetch\n"
    assert re.search(r"plain files +2\.0 MB +66%", clone("warm", "v1", "--check").out)
    assert clone("pin").out == ""
    assert clone("pin", "v1:weights.bin").out == "v1:weights.bin: 1 file, 2.0 MB; nothing to fetch\n"
    assert re.fullmatch(
        rf"v1:weights\.bin  [0-9a-f]{{12}}  2\.0 MB  here  {clone.folder}/\.shardfs\n", clone("pin").out
    )
    refused = clone("evict", "v1", status=15)
    assert "pinned by v1:weights.bin" in refused.err
    clone("evict", "--all")
    assert "2.0 MB" in clone("warm", "v1:weights.bin", "--check").out
    assert clone("unpin", "v1:weights.bin").out == "unpinned v1:weights.bin\n"
    assert clone("evict", "v1").out == "freed 2.0 MB\n"
    assert re.search(r"plain files +0 B +0%", clone("warm", "v1", "--check").out)


def test_force_evicts_what_is_pinned(clone: Shell) -> None:
    clone("pin", "v1")
    clone("evict", "v1", "--force")
    assert clone("pin", "--json").json == []


def test_what_was_read_into_memory_is_told(clone: Shell) -> None:
    assert clone("warm", "v1:weights.bin", "--page-cache").out.endswith(", 2.0 MB read into memory\n")
    clone("config", "set", "cache.files", "false")  # and without a mount there is nothing to read
    assert clone("warm", "v1:weights.bin", "--page-cache").out.endswith(", 0 B read into memory\n")


def test_documents(clone: Shell) -> None:
    def follows(name: str, *line: str) -> None:
        assert schema.problems(SCHEMAS[name], clone(*line, "--json").json) == []

    follows("warm --check", "warm", "v1", "--check")
    follows("warm", "warm", "v1:other.bin", "--page-cache")
    follows("pin REV", "pin", "v1")
    follows("pin", "pin")
    follows("unpin", "unpin", "--all")
    follows("evict", "evict", "v1")
    follows("evict", "evict", "--all")


def test_pin_that_does_not_fit_says_what_to_do(clone: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", "2M")
    refused = clone("pin", "v1", status=1)
    assert "v1 has 3000000 bytes in files" in refused.err
    assert "cache.size" in refused.err
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    ["warm", "warm :x", "unpin", "unpin v1 --all", "evict", "evict v1 --all", "warm v1 --check --page-cache"],
)
def test_lines_without_meaning(clone: Shell, line: str) -> None:
    clone(*line.split(), status=2)


def test_path_may_start_here(clone: Shell) -> None:
    (clone.folder / "below").mkdir()
    assert "1 file" in clone("warm", "v1:../other.bin", cwd=clone.folder / "below").out
