"""Checkpoints and throughput."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from leo_lightning.data.episode import Episode


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt, that of the largest step: every `every` steps, after validation and at the end.

    Lightning's `save_last` may link last.ckpt to the best checkpoint. It would also save before a validation
    that is due at the same step, and skip that validation on resuming.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every
        self._saved = -1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Episode, batch_idx: int
    ) -> None:
        """Mend the step of log lines: after resuming from a validation, Lightning's lags one behind."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Episode, batch_idx: int
    ) -> None:
        """Save where it is due, unless validation, which saves too, comes next."""
        epoch_loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        if trainer.global_step % self.every == 0 and fetcher and not epoch_loop._should_check_val_fx(fetcher):
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self._saved and not trainer.fast_dev_run:  # pyright: ignore
            self._saved = trainer.global_step
            trainer.save_checkpoint(self.path, weights_only=False)


def best_checkpoint(folder: Path) -> ModelCheckpoint:
    """best.ckpt, that of the highest validation accuracy."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor="val/accuracy",
        mode="max",
        enable_version_counter=False,
        save_on_train_epoch_end=False,  # with the validation, so that last.ckpt holds its score
    )


class Throughput(Callback):
    """Logs train/tasks_per_second, over the steps between two log lines, validation not counted."""

    def __init__(self) -> None:
        self._since = 0.0
        self._tasks = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave validation out."""
        self._restart()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Episode, batch_idx: int
    ) -> None:
        """Count; log where Lightning logs."""
        self._tasks += len(batch.support) * trainer.world_size
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            seconds = time.perf_counter() - self._since
            pl_module.log("train/tasks_per_second", self._tasks / seconds, rank_zero_only=True)
            self._restart()

    def _restart(self) -> None:
        self._since, self._tasks = time.perf_counter(), 0
