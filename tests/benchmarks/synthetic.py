"""Write versions of a random GPT-like state dict of any size as .pt files.

    python -m tests.benchmarks.synthetic OUT --mb 306 [--dtype bfloat16] [--versions v1 v3]

v1 is the first; v2 is v1 with 5 % of its bytes changed, whole tensors at a time; v3 is v1 with every value moved by
about as much as a few hundred steps of training move it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

WIDTH, WORDS = 768, 26_000
SHAPES = {
    "attn.qkv": (3 * WIDTH, WIDTH),
    "attn.out": (WIDTH, WIDTH),
    "mlp.up": (4 * WIDTH, WIDTH),
    "mlp.down": (WIDTH, 4 * WIDTH),
}
BLOCK_VALUES = 12 * WIDTH * WIDTH
SPREAD, STEP = 0.02, 1e-4  # standard deviations of the weights and of what training adds
SHARE_CHANGED = 0.05


def first(values: int, dtype: Any) -> dict[str, Any]:
    """About `values` random weights; small models have a small embedding."""
    words = min(WORDS, values // 4 // WIDTH)
    state = {"wte.weight": torch.randn(words, WIDTH).mul_(SPREAD).to(dtype)}
    for block in range(max(1, round((values - words * WIDTH) / BLOCK_VALUES))):
        for name, shape in SHAPES.items():
            state[f"h.{block}.{name}.weight"] = torch.randn(*shape).mul_(SPREAD).to(dtype)
    return state


def moved(tensor: Any) -> Any:
    """The same tensor after some training."""
    return tensor.float().add_(torch.randn(tensor.shape), alpha=STEP).to(tensor.dtype)


def partly_moved(state: dict[str, Any]) -> dict[str, Any]:
    """As many whole tensors moved as make up the share, those of the last blocks first."""
    new, left = dict(state), round(SHARE_CHANGED * sum(tensor.numel() for tensor in state.values()))
    for name in reversed(state):
        if state[name].numel() <= left:
            new[name], left = moved(state[name]), left - state[name].numel()
    return new


def main() -> None:
    """Write the versions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mb", type=int, default=306)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--versions", nargs="+", choices=("v1", "v2", "v3"), default=["v1", "v2", "v3"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    dtype = getattr(torch, given.dtype)
    state = first(given.mb * 1_000_000 // dtype.itemsize, dtype)
    if "v1" in given.versions:
        torch.save(state, given.out / "v1.pt")
    if "v2" in given.versions:
        torch.save(partly_moved(state), given.out / "v2.pt")
    if "v3" in given.versions:
        torch.save({name: moved(tensor) for name, tensor in state.items()}, given.out / "v3.pt")


if __name__ == "__main__":
    main()
