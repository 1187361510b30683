"""Checkpoints that are read through mounts, made when they are missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import series

SMALL_MB = 96
SAFETENSORS, TORCH = "model.safetensors", "model.pt"

_CONVERT = """
import sys, torch
from safetensors.torch import save_file
save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])
"""


@dataclass(frozen=True)
class Subject:
    """What is stored and read.

    Attributes:
        title: what it is, for people.
        versions: the files of each version by name, oldest first; the last version is read.
    """

    title: str
    versions: tuple[Mapping[str, Path], ...]

    @property
    def newest(self) -> Mapping[str, Path]:
        """The files that are read."""
        return self.versions[-1]


def small(folder: Path) -> Subject:
    """A bf16 state dict in both containers."""
    made = folder / "mount-bf16"
    if not made.exists():
        unfinished = folder / "mount-bf16.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        maker = [sys.executable, "-m", "tests.benchmarks.synthetic", str(unfinished)]
        subprocess.run([*maker, "--mb", str(SMALL_MB), "--dtype", "bfloat16", "--versions", "v1"], check=True)
        convert = [sys.executable, "-c", _CONVERT, str(unfinished / "v1.pt"), str(unfinished / SAFETENSORS)]
        subprocess.run(convert, check=True)
        unfinished.rename(made)
    title = "bf16, one version, as .safetensors and as .pt"
    return Subject(title, ({SAFETENSORS: made / SAFETENSORS, TORCH: made / "v1.pt"},))


def tuned(folder: Path) -> Subject:
    """The fourth version of a model in training."""
    series.make(folder, ["mlm"])
    files = [folder / f"mlm/fp32_v{number}.safetensors" for number in range(4)]
    return Subject("fp32, the last of four versions in training", tuple({SAFETENSORS: file} for file in files))


def large(folder: Path) -> Subject:
    """A bf16 state dict of 1 GB."""
    series.make(folder, ["syn-large-bf16"])
    return Subject("bf16, one version of 1 GB", ({TORCH: folder / "syn-large-bf16/v1.pt"},))
