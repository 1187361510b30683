"""Fine-tune MiniLM-L6 in ways that leave different traces in its checkpoints.

    python -m tests.benchmarks.finetune RUN OUT [--seed N]

OUT gets `fp32_v0.safetensors`, `bf16_v0.safetensors` (the same weights, rounded) and so on, v0 being the base model.
Runs: `mlm` moves every tensor by a constant learning rate, and also saves the training state with that of AdamW as
`full_v1.pt` and so on; `mlmlong` has versions far apart and a learning rate that falls to zero; `simcse` leaves most
rows of the embedding as they were, bit by bit; `partial` trains two of six layers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.checkpoints import TOKENS, Trainer

WARM_UP_STEPS = 10
TEXT_BATCHES = 100  # of neighbours, whose text makes some 100 000 words
WINDOWS = 8  # stretches of text in a batch of masked words
SHARE_MASKED = 0.15
PAIR_BATCHES = 3  # batches of neighbours in one step


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        learning_rate: of AdamW, after a linear warm-up.
        steps: between two versions.
        versions: after v0.
        pairs: contrast neighbouring paragraphs; otherwise guess masked words.
        train: `all` or `top`, the last two layers.
        fades: the learning rate falls to zero at the last step.
        full: save the whole training state, too.
    """

    learning_rate: float
    steps: int
    versions: int
    pairs: bool = False
    train: str = "all"
    fades: bool = False
    full: bool = False


RECIPES = {
    "mlm": Recipe(5e-5, steps=15, versions=6, full=True),
    "mlmlong": Recipe(5e-5, steps=80, versions=4, fades=True),
    "simcse": Recipe(2e-5, steps=10, versions=5, pairs=True),
    "partial": Recipe(5e-5, steps=10, versions=5, train="top"),
}


class Tuner(Trainer):
    """A trainer that follows a recipe."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        super().__init__(recipe.train, seed)
        self.recipe = recipe
        if recipe.pairs:  # weight decay would move the rows that no batch has touched
            self.optimizer.param_groups[0]["weight_decay"] = 0.0
            batches = self.pairs
            self.pairs = ([pair for _ in range(PAIR_BATCHES) for pair in next(batches)] for _ in count())
        else:
            self.words = self._words()

    def versions(self) -> Iterator[int]:
        """Train on and yield the number of each version, from 0."""
        last = self.recipe.versions * self.recipe.steps
        for step in range(last):
            if step % self.recipe.steps == 0:
                yield step // self.recipe.steps
            rate = self.recipe.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS)
            self.optimizer.param_groups[0]["lr"] = rate * (1 - step / last if self.recipe.fades else 1.0)
            self.run(1)
        yield self.recipe.versions

    def loss(self) -> Any:
        return super().loss() if self.recipe.pairs else self._loss_of_masked()

    def _words(self) -> Any:
        """Ids of the whole text, one after the other."""
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        pairs = (pair for batch in islice(self.pairs, TEXT_BATCHES) for pair in batch)
        text = "\n".join(paragraph for pair in pairs for paragraph in pair)
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _loss_of_masked(self) -> Any:
        starts = torch.randint(0, len(self.words) - TOKENS, (WINDOWS,))
        batch = torch.stack([self.words[start : start + TOKENS] for start in starts])
        batch[:, 0] = self.tokenizer.token_to_id("[CLS]")
        batch[:, -1] = self.tokenizer.token_to_id("[SEP]")
        hidden = torch.rand(batch.shape) < SHARE_MASKED
        hidden[:, 1] = True  # never none
        seen = batch.masked_fill(hidden, self.tokenizer.token_to_id("[MASK]"))
        guess = self.model(input_ids=seen).last_hidden_state[hidden]
        words = self.model.embeddings.word_embeddings.weight
        return torch.nn.functional.cross_entropy(guess @ words.T, batch[hidden])


def save(tuner: Tuner, version: int, out: Path) -> None:
    """Write all files of one version."""
    for short, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        save_file(tuner.state(dtype), out / f"{short}_v{version}.safetensors", metadata={"format": "pt"})
    if tuner.recipe.full and version:
        state = {
            "step": version * tuner.recipe.steps,
            "model": tuner.state("float32"),
            "optimizer": tuner.optimizer.state_dict(),
        }
        torch.save(state, out / f"full_v{version}.pt")


def main() -> None:
    """Train, and save every version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RECIPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    tuner = Tuner(RECIPES[given.run], given.seed)
    for version in tuner.versions():
        save(tuner, version, given.out)


if __name__ == "__main__":
    main()
