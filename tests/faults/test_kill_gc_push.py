"""kill -9 right before every durable step of a commit, gc, push and fetch: nothing is lost, and the next try ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("operation", "least_steps"), [("commit", 15), ("gc", 15), ("push", 25), ("fetch", 25)])
def test_killed_anywhere(operation: str, least_steps: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.killing", operation, tmp_path],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(one["status"] in (0, 9) for one in rounds), done.stderr[-2000:]
    assert rounds[-1]["status"] == 0
    assert len(rounds) > least_steps
    assert {one["step"]: one["problems"] for one in rounds if one["problems"]} == {}
    # What a kill left behind is used or removed by the next run; a commit makes another version with each run.
    if operation == "gc":
        assert all(one["packs"] == rounds[-1]["packs"] for one in rounds)
    if operation in ("push", "fetch"):
        assert all(one["tips"] == rounds[-1]["tips"] for one in rounds)
