"""Checkpoints of learners that nobody trained."""

from pathlib import Path

import torch

from leo_lightning.learners.learner import Learner
from leo_lightning.training.checkpoint import LIGHTNING
from leo_lightning.training.meta_learner import MetaLearner


def save_checkpoint(path: Path, learner: Learner) -> None:
    model = MetaLearner(learner)
    content = {
        "hyper_parameters": dict(model.hparams),
        "state_dict": model.state_dict(),
        "global_step": 3,
        LIGHTNING: "2.6.0",
    }
    torch.save(content, path)
