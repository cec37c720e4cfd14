"""Sizes and duration of the measurements, and the random features for them."""

from pathlib import Path
from typing import NamedTuple

import torch

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.splits import save_splits


class Sizes(NamedTuple):
    """Sizes of the published experiments on miniImageNet."""

    tasks: int = 12
    way: int = 5
    query: int = 15
    embedding_size: int = 640
    num_latents: int = 64
    latent_steps: int = 5
    finetuning_steps: int = 5
    dropout: float = 0.3
    eval_tasks: int = 64
    pool_tasks: int = 128
    """Tasks evaluated at once where all remaining images are queries."""
    classes: tuple[int, int, int] = (64, 16, 20)
    images: int = 600
    large_classes: int = 6990
    """Classes of a bank on disk: 10 GB."""


class Effort(NamedTuple):
    """Duration of the measurements."""

    rounds: int
    budget: float
    """Seconds per round of a row that is one function."""
    train_steps: int
    """Training steps per round through the Trainer: a multiple of 50, at which it logs."""
    eval_batches: int
    all_query_batches: int
    startups: int


QUICK = Effort(rounds=3, budget=0.2, train_steps=50, eval_batches=5, all_query_batches=1, startups=1)
FULL = Effort(rounds=7, budget=0.4, train_steps=100, eval_batches=20, all_query_batches=3, startups=3)


def save_features(root: Path, sizes: Sizes) -> None:
    """Write banks of all splits to `root`: classes are clusters of random embeddings."""
    generator = torch.Generator().manual_seed(0)
    banks = []
    for split, classes in zip(("train", "val", "test"), sizes.classes, strict=True):
        labels = torch.arange(classes).repeat_interleave(sizes.images)
        means = torch.randn(classes, sizes.embedding_size, generator=generator)
        embeddings = torch.randn(len(labels), sizes.embedding_size, generator=generator).add_(means[labels])
        names = [f"{split}{label}" for label in labels.tolist()]
        banks.append((split, FeatureBank.from_arrays(embeddings, names, source=f"random {split}")))
    save_splits(banks, root)
