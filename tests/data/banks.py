"""A feature bank to test with."""

import torch

from leo_lightning.data.bank import FeatureBank


def make_bank(classes: list[str], images: int = 3, size: int = 4, split: str = "train") -> FeatureBank:
    """Return a bank with `images` random rows of every class."""
    generator = torch.Generator().manual_seed(len(classes))
    labels = [name for name in classes for _ in range(images)]
    embeddings = torch.randn(len(labels), size, generator=generator)
    names = [f"{name}_{row}.jpg" for row, name in enumerate(labels)]
    return FeatureBank.from_arrays(embeddings, labels, names, {"split": split, "dataset": "toy"}, split)
