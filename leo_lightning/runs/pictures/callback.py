"""Callbacks that draw without changing anything: pictures of a training, and of a test task."""

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng

from leo_lightning.common.errors import one_line
from leo_lightning.common.figure_style import figure_style, save_figure
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.drawings import DRAWINGS
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.runs.folder import TEST_PICTURE
from leo_lightning.runs.pictures.album import Album
from leo_lightning.runs.pictures.view import View
from leo_lightning.training.meta_learner import MetaLearner


class Pictures(Callback):
    """Draws and logs pictures after some validations and at the end of training, on the first process.

    Args:
        folder: the run folder.
        every: draw after every so many validations.
        test_follows: finish the last pictures during the test instead of before it.
    """

    def __init__(self, folder: Path, every: int, test_follows: bool = False) -> None:
        self.album = Album(folder)
        self.every = every
        self.test_follows = test_follows
        self._validations = 0
        self._validated = self._drawn = -1  # steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Delete pictures of steps that will be taken again."""
        if trainer.is_global_zero:
            self.album.forget_after(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after every `every` validations."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._validations += 1
        self._validated = trainer.global_step
        if self._validations % self.every == 0:
            self._draw(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Draw the end of the training, unless it was drawn after its validation.

        A run that is killed before that resumes from an earlier checkpoint, and draws its end again.
        """
        if trainer.fit_loop.done and self._drawn != trainer.global_step:
            self._draw(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log the last pictures."""
        if stage != "fit" or not self.test_follows:
            self.album.finish(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Log the pictures so far."""
        self.album.finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Number of validations so far."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._validations = state_dict["validations"]

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.album.finish(trainer)  # those of an earlier validation
        self._drawn = step = trainer.global_step
        if not trainer.is_global_zero or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        from leo_lightning.runs.pictures.gallery import (
            PICTURES,
        )  # imports matplotlib: not at the start of a run

        assert isinstance(pl_module, MetaLearner)
        learner, data = pl_module.learner, trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, TaskDataModule)
        scores = pl_module.val_scores["final"] if self._validated == step else None
        view = View(learner, data, pl_module.device, cast(torch.dtype, pl_module.dtype), scores)
        failed: dict[str, Exception] = {}
        modes = {module: module.training for module in learner.modules()}
        with isolate_rng(), torch.inference_mode(), trainer.precision_plugin.val_step_context():
            learner.eval()
            for name, draw in PICTURES.items():
                try:
                    with figure_style():
                        if picture := draw(view):
                            self.album.add(trainer, name, picture, step)
                except Exception as error:  # a full disk, a logger, NaN in a histogram: training continues
                    failed[name] = error
            for module, mode in modes.items():
                module.training = mode
        self.album.no_more()
        if failed:
            reason = one_line(next(iter(failed.values())))
            rank_zero_warn(f"step {step}: no picture of {', '.join(failed)} ({reason})")


class TestPicture(Callback):
    """Draws a test task after a test, on the first process, if the images lie beside the features.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / TEST_PICTURE

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw; a picture that fails is not worth a test."""
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not (trainer.is_global_zero and isinstance(data, EpisodeDataModule) and data.root):
            return
        if not (data.root / DRAWINGS).is_file():
            return
        from leo_lightning.runs.pictures.test_task import draw, read_task  # imports matplotlib

        assert isinstance(pl_module, MetaLearner)
        like = torch.empty(0, dtype=cast(torch.dtype, pl_module.dtype), device=pl_module.device)
        try:
            with isolate_rng(), torch.inference_mode(), figure_style():
                task = read_task(pl_module.learner, data, like)
                if task is not None:
                    self.path.parent.mkdir(exist_ok=True)
                    title = f"{type(pl_module.learner).__name__} on the first test task, {data.kind()}"
                    save_figure(draw(task, title), self.path)
        except Exception as error:  # a full disk, or drawings that are those of other features
            rank_zero_warn(f"no picture of the test task ({one_line(error)})")
