"""The parts of the mount benchmark measure what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shardfs
from tests.benchmarks.measuring import size_of
from tests.benchmarks.mounts import daemons, peers, reading, scale, targets
from tests.benchmarks.mounts.loading import LOADS, load_and_touch
from tests.benchmarks.mounts.patterns import COMPILER, Patterns
from tests.benchmarks.mounts.subjects import SAFETENSORS, TORCH, Subject
from tests.benchmarks.tools import Borg, Squashfs, Tool

SIZE = 2 * (1 << 20) + 12_345


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("pattern", "numbers", "size"),
    [("sequential", (), SIZE), ("threads", (3,), SIZE), ("random", (5,), 5 * 4096), ("faults", (2, 5), 10 * 4096)],
)
def test_patterns_read_as_much_as_they_say(tmp_path: Path, pattern: str, numbers: tuple[int, ...], size: int) -> None:
    data = tmp_path / "data"
    data.write_bytes(os.urandom(SIZE))
    seconds, read = Patterns.build(tmp_path).run(pattern, data, *numbers)
    assert seconds > 0
    assert read == size


def test_every_load_finds_the_tensors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"a": torch.zeros(3000, 5), "b": torch.ones(7, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / TORCH)
    save_file(state, tmp_path / SAFETENSORS)
    for how in LOADS:
        file = TORCH if how.startswith("torch") else SAFETENSORS
        assert load_and_touch(how, str(tmp_path / file)) > 0


def test_daemons_are_told_by_their_home(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "print('ready', flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, env={"HOME": str(tmp_path)}, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert daemons.of_home(tmp_path) == [process.pid]
            assert daemons.resident([process.pid]) > 1_000_000
            assert daemons.of_home(tmp_path / "other") == []
        finally:
            process.kill()
    assert daemons.resident([process.pid]) == 0


def test_large_repositories_are_sound(tmp_path: Path) -> None:
    scale.many_commits(tmp_path / "commits", 30)
    scale.many_files(tmp_path / "files", 2 * scale.PER_FOLDER + 3)
    with shardfs.open(tmp_path / "commits") as repo:
        assert len(repo.versions()) == 30
        assert repo.verify().problems == []
    with shardfs.open(tmp_path / "files") as repo:
        assert len(list(repo.walk("HEAD"))) == 2 * scale.PER_FOLDER + 3 + 3
        assert repo.verify().problems == []


def test_targets_compare_with_the_best_of_the_others(tmp_path: Path) -> None:
    file = tmp_path / TORCH
    file.write_bytes(bytes(1_000_000))
    results = reading.Results(Subject("it", ({TORCH: file},)), (reading.SEQUENTIAL, reading.TORCH_MAPPED))
    for tool, seconds in ((peers.Cold, 0.1), (Squashfs, 0.3), (Borg, 0.25), (peers.Plain, 0.05)):
        results.seconds[tool.name, reading.SEQUENTIAL.title, "cold"].append(seconds)
        results.seconds[tool.name, reading.TORCH_MAPPED.title, "hot"].append(seconds)
    checks = {check.what: check for check in targets.of_reads(results)}
    first = checks["it: first read, to the best compressed FUSE peer"]
    assert (first.measured, first.met) == ("2.50x", True)
    mapped = checks["it: torch.load, mmap, first seen, hot, to the plain file"]
    assert (mapped.measured, mapped.met) == ("2.00x", False)
    assert len(checks) == 2
    assert "**no**" in targets.report(list(checks.values()))
    slow = targets.of_scale({"1 commits": {"ready": 0.6, "idle": 1e6, scale.VERSIONS_FIRST: 0.5}})
    assert [check.met for check in slow] == [False, True, True]


def test_a_cold_mount_starts_with_an_empty_cache(tmp_path: Path) -> None:
    tool = peers.Cold(tmp_path / "scratch")
    tool.do_create()
    (tool.project / "model").write_bytes(os.urandom(300_000))
    tool.do_commit(1)
    subprocess.run(["shardfs", "-C", str(tool.project), "warm", "HEAD"], env=tool.environment(), check=True)
    before = size_of(tool.scratch / "home")
    tool.reset()
    assert size_of(tool.scratch / "home") <= before - 300_000


@pytest.mark.parametrize("tool", peers.ALL)
def test_what_a_peer_lacks_is_named(tool: type[Tool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.missing(to_mount=True) == list(tool.programs)
