"""kill -9 right before every durable step of optimize: nothing is lost, and the next run ends where one run does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.killing_optimize", folder],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(one["status"] in (0, 9) for one in rounds), done.stderr[-2000:]
    assert rounds[-1]["status"] == 0
    assert len(rounds) > 40
    assert {one["step"]: one["problems"] for one in rounds if one["problems"]} == {}
    assert {len(one["packs"]["local"]) for one in rounds} == {len(rounds[-1]["packs"]["local"])}
