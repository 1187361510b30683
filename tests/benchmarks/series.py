"""The series of files that the benchmarks store, made when they are missing.

A series folder has one folder per maker (see `MAKERS`). Each is made whole or not at all, and used as it is when it is
there, so a second benchmark on the same folder starts at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LARGE_MB = 1000
QUICK_MB = 60
QUICK_FILES = 3


@dataclass(frozen=True)
class Series:
    """Files that are committed one after the other.

    Attributes:
        title: what they are.
        files: paths below the series folder, oldest first.
        target: most MB that shardfs may store for all of them; None: no target.
        chunk_target: what deduplication alone should leave, as it is printed.
        one_name: they are versions of one file; otherwise each keeps its own name.
    """

    title: str
    files: tuple[str, ...]
    target: float | None = None
    chunk_target: str = "-"
    one_name: bool = True

    def quick(self) -> Series:
        """The first files only, which say nothing about the target."""
        return Series(f"{self.title}: the first {QUICK_FILES}", self.files[:QUICK_FILES], one_name=self.one_name)

    def name_of(self, file: Path) -> str:
        """The name of one of its files in the work tree."""
        return f"model{file.suffix}" if self.one_name else file.name


def _versions(pattern: str, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(pattern.replace("*", str(number)) for number in numbers)


_VARIANTS = ("{}.safetensors", "{}_resized.safetensors", "{}_inserted.safetensors", "{}_midrows.safetensors", "{}.pt")

BYTES = (
    Series("bf16, all tensors train, v0..v5", _versions("mlm/bf16_v*.safetensors", range(6)), 78),
    Series("bf16, long gap, v0..v4", _versions("mlmlong/bf16_v*.safetensors", range(5)), 75),
    Series("fp32, all tensors train, v0..v5", _versions("mlm/fp32_v*.safetensors", range(6)), 343),
    Series("bf16, sparse embedding, v0..v5", _versions("simcse/bf16_v*.safetensors", range(6)), 44),
    Series("fp32, 2 of 6 layers train, v0..v5", _versions("partial/fp32_v*.safetensors", range(6)), 116),
    Series("`.pt` with Adam state, v1..v6", _versions("mlm/full_v*.pt", range(1, 7)), 1185),
    Series(
        "bf16, a base and two fine-tunes of it",
        ("mlm/bf16_v0.safetensors", "mlm/bf16_v2.safetensors", "sib/bf16_v5.safetensors"),
    ),
    Series(
        "fp32, ten related files",
        tuple(f"var/{name.format(model)}" for model in ("base", "ft") for name in _VARIANTS),
        chunk_target="<= 110 in <= 1900",
        one_name=False,
    ),
)
QUICK = tuple(series.quick() for series in BYTES if series.title.startswith(("bf16, all", "fp32, 2 of", "fp32, ten")))

MAKERS = {
    "mlm": ["finetune", "mlm", "OUT"],
    "mlmlong": ["finetune", "mlmlong", "OUT"],
    "simcse": ["finetune", "simcse", "OUT"],
    "sib": ["finetune", "simcse", "OUT", "--seed", "2"],
    "partial": ["finetune", "partial", "OUT"],
    "var": ["variants", "FOLDER/mlm/fp32_v0.safetensors", "FOLDER/mlm/fp32_v3.safetensors", "OUT"],
    "syn": ["synthetic", "OUT"],
    "syn-bf16": ["synthetic", "OUT", "--dtype", "bfloat16", "--versions", "v1", "v3"],
    "syn-large": ["synthetic", "OUT", "--mb", str(LARGE_MB), "--versions", "v1", "v3"],
    "syn-large-bf16": ["synthetic", "OUT", "--mb", str(LARGE_MB), "--dtype", "bfloat16", "--versions", "v1", "v3"],
    "syn-quick": ["synthetic", "OUT", "--mb", str(QUICK_MB)],
}
_NEEDS = {"var": ("mlm",)}


def make(folder: Path, names: Iterable[str]) -> None:
    """Make the named parts of a series folder unless they are there; a run of training takes one or two minutes."""
    for name in names:
        if (folder / name).exists():
            continue
        make(folder, _NEEDS.get(name, ()))
        unfinished = folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        module, *arguments = MAKERS[name]
        argv = [word.replace("FOLDER", str(folder)) if word != "OUT" else str(unfinished) for word in arguments]
        print(f"making {folder / name}", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *argv], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"tests.benchmarks.{module}: exit status {done.returncode}\n{done.stderr}")
        unfinished.rename(folder / name)


def files_of(series: Series, folder: Path) -> list[Path]:
    """The files of a series, made if they are missing."""
    make(folder, {file.partition("/")[0]: None for file in series.files})
    return [folder / file for file in series.files]
