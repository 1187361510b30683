"""What may import what, and what `import shardfs` costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["aiohttp", "asyncio", "mfusepy", "rich", "numpy", "sqlite_utils", "torch", "zstandard", "tomlkit", "click"]


def test_imports_point_one_way() -> None:
    pytest.importorskip("importlinter")
    program = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "kept" in done.stdout


@pytest.mark.parametrize("module", ["shardfs", "shardfs_cli.main"])
def test_importing_is_light(module: str) -> None:
    heavy = [name for name in HEAVY if not (name == "click" and module == "shardfs_cli.main")]
    program = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_opening_a_repository_needs_no_network_and_no_kernel(tmp_path: Path) -> None:
    program = (
        "import sys, shardfs; shardfs.init(sys.argv[1]).close();"
        "print([m for m in ('aiohttp', 'mfusepy', 'rich', 'torch') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "p"], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
