"""The tutorial and the demo are promises: their commands are run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import ENGINES

ROOT = Path(__file__).parents[2]
WALK_DEADLINE_S = 300

pytestmark = [pytest.mark.fuse, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(WALK_DEADLINE_S + 30)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_bash(argv: list[str], folder: Path) -> str:
    """Run a script with this environment's `shardfs` and `python`; all it started dies with it."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    child = subprocess.Popen(
        ["bash", *argv],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=WALK_DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGTERM)
        output, _ = child.communicate(timeout=10)
        pytest.fail(f"not done after {WALK_DEADLINE_S} s:\n{output}")
    assert child.returncode == 0, output
    return output


@pytest.mark.parametrize("engine", ENGINES)
def test_tutorial_works_as_written(tmp_path: Path, minilm: list[Path], engine: str) -> None:
    page = (ROOT / "docs/tutorial/first-mount.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    making, *steps = blocks
    assert "checkpoints.py" in making
    script = "\n".join(steps).replace("shardfs mount ", f"shardfs mount --engine {engine} ")
    script = script.replace("/tmp/checkpoints", str(minilm[0].parent)).replace("8750", str(free_port()))
    points = f"{tmp_path}/project/models {tmp_path}/remote-models"
    stop = f"trap 'kill $server; for point in {points}; do fusermount3 -uqz $point; done' ERR"
    output = run_bash(["-eEuxo", "pipefail", "-c", f"server=\n{stop}\n{script}"], tmp_path)
    assert "0004-epoch-2-both-containers" in output


def test_demo_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    output = run_bash([str(ROOT / "docs/tutorial/demo.sh")], tmp_path)
    assert "logical MB" in output
    assert list(tmp_path.iterdir()) == []
