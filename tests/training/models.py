"""Tiny models, data and trainers, for the tests of the outer loop."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.learners.leo import LEO
from leo_lightning.training.meta_learner import MetaLearner


def data(**settings) -> EpisodeDataModule:
    return EpisodeDataModule(
        "synthetic", batch_size=2, steps_per_epoch=4, val_tasks=4, test_tasks=8, **settings
    )


def trainer(folder: Path, **options) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    return pl.Trainer(default_root_dir=folder, **(quiet | options))


def system(learner: type[LEO] = LEO, **options) -> MetaLearner:
    torch.manual_seed(0)
    return MetaLearner(learner(embedding_size=128, num_latents=4, dropout=0.3), **options)


class Poisoned(LEO):
    """A LEO whose loss, or whose gradient alone, is not finite at chosen steps."""

    steps: tuple[int, ...] = ()
    gradient_only = False
    calls = 0

    def outcome(self, episode, noise):
        outcome = super().outcome(episode, noise)
        if self.training:
            self.calls += 1
            if self.calls in self.steps:
                # sqrt at 0: the value is finite, its derivative is not; a constant: the other way round
                poison = torch.sqrt(self.alpha.sum() * 0.0) if self.gradient_only else torch.tensor(torch.inf)
                return outcome._replace(loss=outcome.loss + poison)
        return outcome


def poisoned(steps: tuple[int, ...], gradient_only: bool = False, **options) -> MetaLearner:
    model = system(Poisoned, **options)
    model.learner.steps, model.learner.gradient_only = steps, gradient_only
    return model


class Weights(pl.Callback):
    """Keeps a copy of the weights after every step."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.seen.append([p.detach().clone() for p in pl_module.parameters()])
