"""Pictures: when they are drawn, without a trace in the training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng

from leo_lightning.common.errors import one_line
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.runs.pictures import (
    codes,
    confusion,
    hardest_tasks,
    inner_steps,
    learning_rates,
    task_scores,
)
from leo_lightning.runs.pictures.album import Album
from leo_lightning.runs.pictures.view import Picture, View
from leo_lightning.training.meta_learner import MetaLearner
from leo_lightning.training.task_scores import TaskScores

PICTURES: dict[str, Callable[[View], Picture | None]] = {
    "codes": codes.draw,
    "inner_steps": inner_steps.draw,
    "task_accuracies": task_scores.accuracies,
    "task_errors": task_scores.errors,
    "confusion": confusion.draw,
    "learning_rates": learning_rates.draw,
    "hardest_tasks": hardest_tasks.draw,
}
"""By the name of their folder; one that a learner has nothing for is left out."""


class Pictures(Callback):
    """Draws and logs pictures after some validations and at the end of the training, on the first process.

    Args:
        folder: the run folder.
        every: validations between two times.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.album = Album(folder)
        self.every = every
        self._validations = 0
        self._validated = self._drawn = -1  # steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what is taken again."""
        if trainer.is_global_zero:
            self.album.forget_after(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what is due."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._validations += 1
        self._validated = trainer.global_step
        if self._validations % self.every == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, unless the last validation was drawn and nothing was trained since."""
        if self._drawn != trainer.global_step:
            self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Which validation is due next."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._drawn = step = trainer.global_step
        if not trainer.is_global_zero or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        assert isinstance(pl_module, MetaLearner)
        failed: dict[str, Exception] = {}
        modes = {module: module.training for module in pl_module.learner.modules()}
        with isolate_rng(), torch.inference_mode(), trainer.precision_plugin.val_step_context():
            pl_module.learner.eval()
            view = self._view(trainer, pl_module)
            for name, draw in PICTURES.items():
                try:
                    self._one(trainer, name, draw, view)
                except (
                    Exception
                ) as error:  # of the disk, a logger, numbers that are none: the training goes on
                    failed[name] = error
            for module, mode in modes.items():
                module.training = mode
        if failed:
            reason = one_line(next(iter(failed.values())))
            rank_zero_warn(f"step {step}: no picture of {', '.join(failed)} ({reason})")

    def _one(
        self, trainer: pl.Trainer, name: str, draw: Callable[[View], Picture | None], view: View
    ) -> None:
        from leo_lightning.common.figure_style import figure_style

        with figure_style():
            picture = draw(view)
            if picture is not None:
                self.album.add(trainer, name, picture, trainer.global_step)

    def _view(self, trainer: pl.Trainer, system: MetaLearner) -> View:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, TaskDataModule)
        fresh = self._validated == trainer.global_step
        scores: TaskScores | None = system.val_scores["final"] if fresh else None
        return View(system.learner, data, system.device, cast(torch.dtype, system.dtype), scores)
