"""kill -9 of client or server while something goes over the network; `make faults` does hundreds of rounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROUNDS = 3  # of each of four operations


@pytest.mark.network
@pytest.mark.slow
def test_killed_at_random_moments_of_a_transfer(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.faults.killing_transfer", "--rounds", str(ROUNDS)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clone --full" in done.stdout
