"""Write ten related files: a base model and its fine-tune, each as it is, resized, extended and as another container.

    python -m tests.benchmarks.variants BASE TUNED OUT

BASE and TUNED are .safetensors files with an embedding of words.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SPREAD = 0.02  # standard deviation of new weights
ROWS_APPENDED, ROWS_INSERTED, INSERTED_AT = 7, 3, 10_000
LARGEST = "embeddings.word_embeddings.weight"
METADATA = {"format": "pt"}


def rows(like: Any, count: int) -> Any:
    """New rows for a matrix."""
    return (torch.randn(count, like.shape[1]) * SPREAD).to(like.dtype)


def write(state: dict[str, Any], out: Path, name: str) -> None:
    """The five files of one model."""
    words = state[LARGEST]
    new = {"adapter.a": torch.randn(384, 13), "encoder.layer.2.lora": torch.randn(8, 384)}
    inserted = torch.cat([words[:INSERTED_AT], rows(words, ROWS_INSERTED), words[INSERTED_AT:]])
    save_file(state, out / f"{name}.safetensors", METADATA)
    save_file(
        state | {LARGEST: torch.cat([words, rows(words, ROWS_APPENDED)])}, out / f"{name}_resized.safetensors", METADATA
    )
    save_file(state | new, out / f"{name}_inserted.safetensors", METADATA | {"note": "two tensors more"})
    save_file(state | {LARGEST: inserted}, out / f"{name}_midrows.safetensors", METADATA)
    torch.save(state, out / f"{name}.pt")


def main() -> None:
    """Write all ten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "tuned", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    write(load_file(given.base), given.out, "base")
    write(load_file(given.tuned), given.out, "ft")


if __name__ == "__main__":
    main()
