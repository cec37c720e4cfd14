"""Throughput of training."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Throughput(Callback):
    """Logs throughput/tasks_per_second, or another unit, between two log lines, without validation.

    The number of units in a batch is the length of its first tensor.
    """

    def __init__(self, counted: str = "tasks") -> None:
        self.counted = counted
        self._since = 0.0
        self._count = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since, self._count = time.perf_counter(), 0

    on_validation_end = on_train_start

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log where Lightning logs."""
        self._count += len(batch[0]) * trainer.world_size
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            rate = self._count / (time.perf_counter() - self._since)
            pl_module.log(f"throughput/{self.counted}_per_second", rate, rank_zero_only=True)
            self.on_train_start(trainer, pl_module)
