"""What the build hook makes with a compiler and without."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from shardfs.codecs import kernels, kernels_c

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook() -> ModuleType:
    pytest.importorskip("hatchling")
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, hook: ModuleType) -> Iterator[Path]:
    """A tree with nothing but the source."""
    (tmp_path / hook.SOURCE).parent.mkdir(parents=True)
    shutil.copy(ROOT / hook.SOURCE, tmp_path / hook.SOURCE)
    yield tmp_path
    left = {path.name for path in (tmp_path / hook.SOURCE).parent.iterdir()}
    assert left <= {Path(hook.SOURCE).name, Path(hook.LIBRARY).name}


def test_a_compiler_makes_a_library_that_can_be_used(hook: ModuleType, tree: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    assert hook.compile_kernels(tree)
    assert kernels_c.load(str(tree / hook.LIBRARY)) is not None
    assert Path(kernels_c.LIBRARY) == ROOT / hook.LIBRARY


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_no_compiler_is_a_line_and_no_library(
    hook: ModuleType,
    tree: Path,
    compiler: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tree / hook.LIBRARY).write_bytes(b"of another version")
    monkeypatch.setenv("CC", compiler)
    assert not hook.compile_kernels(tree)
    assert not (tree / hook.LIBRARY).exists()
    said = capsys.readouterr().err
    assert "numpy will be used" in said
    assert said.count("\n") == 1


def test_source_errors_do_not_stop_an_installation(
    hook: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / hook.SOURCE).write_text("#error on this machine\n")
    assert not hook.compile_kernels(tree)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("forced", ["numpy", ""])
def test_which_kernels_are_used(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy is imported only where it has work to do."""
    monkeypatch.setenv("SHARDFS_KERNELS", forced)
    program = (
        "import sys; from shardfs.codecs import kernels, registry; registry.encode(bytes(9999), 'float32');"
        "print(kernels.active.name, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    compiled = not forced and kernels_c.load() is not None
    assert done.stdout.split() == (["compiled", "False"] if compiled else ["numpy", "True"])
    assert kernels.active.name in ("compiled", "numpy")
