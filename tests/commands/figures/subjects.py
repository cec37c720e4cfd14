"""Small learners with random weights and tiny features, for the tests of the figures."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from leo_lightning.commands.figures.subject import Subject
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.splits import SPLITS
from leo_lightning.learners.centroid_leo import CentroidLEO
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from tests.data.banks import make_bank

E = 6


def small_leo(**settings: Any) -> LEO:
    """A LEO in evaluation mode whose steps make a difference; with a centroid's scale, a CentroidLEO."""
    defaults = {
        "num_latents": 4,
        "latent_steps": 2,
        "finetuning_steps": 3,
        "latent_lr": 0.3,
        "finetuning_lr": 0.1,
    }
    kind = CentroidLEO if "centroid_scale" in settings else LEO
    return settled(kind(**({"embedding_size": E} | defaults | settings)))


def settled(learner: Learner) -> Any:
    """Random weights, the same every time."""
    generator = torch.Generator().manual_seed(3)
    for parameter in learner.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.5, generator=generator)
        else:
            nn.init.uniform_(parameter, 0.05, 0.4, generator=generator)
    return learner.double().eval().requires_grad_(False)


def with_steps(learner: Learner, **steps: int) -> Any:
    """The same learner with other numbers of steps, none of them more."""
    other = type(learner)(**(learner.init_args() | steps)).double().eval()
    other.load_state_dict({name: learner.state_dict()[name] for name in other.state_dict()})
    return other


def support_of(B: int = 3, N: int = 3, K: int = 2, size: int = E) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, N, K, size, generator=generator, dtype=torch.float64)


def banks() -> dict[str, FeatureBank]:
    return {split: make_bank([f"{split}{i}" for i in range(5)], 12, E, split) for split in SPLITS}


def subject_of(folder: Path, learner: Learner | None = None, **settings: Any) -> Subject:
    """A learner and tasks of 3 classes, out of features in a folder."""
    root = folder / "features"
    if not root.exists():
        root.mkdir()
        for split, bank in banks().items():
            save_bank(bank, root / f"{split}.safetensors")
    data = EpisodeDataModule(**({"root": str(root), "way": 3, "shot": 2, "query": 4} | settings))
    return Subject(str(folder / "x.ckpt"), learner or small_leo(), data)
