"""Throughput of training."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Throughput(Callback):
    """Logs throughput/tasks_per_second, over the steps between two log lines, validation not counted.

    Args:
        what: what a batch, a tuple, has as many of as its first tensor has rows.
    """

    def __init__(self, what: str = "tasks") -> None:
        self.what = what
        self._since = 0.0
        self._count = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave validation out."""
        self._restart()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; log where Lightning logs."""
        self._count += len(batch[0]) * trainer.world_size
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            seconds = time.perf_counter() - self._since
            pl_module.log(f"throughput/{self.what}_per_second", self._count / seconds, rank_zero_only=True)
            self._restart()

    def _restart(self) -> None:
        self._since, self._count = time.perf_counter(), 0
