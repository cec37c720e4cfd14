"""Checkpoints of a run: when they are written, and how, so that a file is never half written."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from leo_lightning.common.errors import Interrupted
from leo_lightning.common.files import whole_file
from leo_lightning.runs.callbacks.stop_signals import StopSignals
from leo_lightning.runs.recorded_config import KEY

STOPPED_BY = "stopped_by"
"""Key of a checkpoint: the state key of the EarlyStopping that has ended the training, or None."""


def stopped_early(trainer: pl.Trainer) -> str | None:
    """Return the state key of the EarlyStopping that ends the training; None if none does."""
    if not (trainer.should_stop and trainer.fit_loop._can_stop_early):
        return None
    decided = (
        callback.state_key
        for callback in trainer.early_stopping_callbacks
        if callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED
    )
    return next(decided, None)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk, and renames it.

    Lightning's own goes through the system's temporary folder, maybe on another disk, and flushes nothing.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write all of it, or leave the file that was there."""
        buffer = io.BytesIO()  # torch's own writer does not report a full disk
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(Path(path)) as part:
            part.write_bytes(buffer.getvalue())


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt at regular steps, after each validation, at the end and on a signal.

    It is written when its step is complete, with validation, best.ckpt and log lines; at an epoch's end also
    with all that callbacks and schedulers make of the epoch. Lightning's hooks come too early: a checkpoint
    that is saved in them lacks a validation that is due, and the log is ahead of it.
    """

    def __init__(self, path: Path, every: int, signals: StopSignals, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.every = every
        self.signals = signals
        self._seen = self.saved = 0
        self._validated = False
        self._metrics: dict[str, Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Add the missing hooks to Lightning's loops."""
        if stage != "fit":
            return
        epochs, steps = trainer.fit_loop, trainer.fit_loop.epoch_loop
        epoch_end, step_end = epochs.on_advance_end, steps.on_advance_end

        def on_step_end(data_fetcher: Any) -> None:
            step_end(data_fetcher)
            if not steps._num_ready_batches_reached():
                self._after_step(trainer)

        def on_epoch_end() -> None:
            epoch_end()
            if steps._num_ready_batches_reached():
                steps.reset()  # else a resumed run would end the same epoch once more
                self._after_step(trainer)

        epochs.on_advance_end, steps.on_advance_end = on_epoch_end, on_step_end

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration, the metrics that callbacks look at, and the one that has ended the training.

        All of it is in best.ckpt as well.
        """
        checkpoint[KEY] = self.config
        checkpoint["callback_metrics"] = {
            name: value.clone() for name, value in trainer.callback_metrics.items()
        }
        checkpoint[STOPPED_BY] = stopped_early(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the metrics."""
        self._metrics = checkpoint.get("callback_metrics", {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the step of the run."""
        self._seen = self.saved = trainer.global_step
        trainer.callback_metrics.update(self._metrics)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Fix the step of log lines: Lightning counts one too many when it resumes at an epoch's end."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember to save."""
        self._validated = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def _after_step(self, trainer: pl.Trainer) -> None:
        callbacks: list[Any] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if self not in callbacks:  # while LearningRateFinder tries rates
            return
        if trainer.global_step == self._seen and not self._validated:
            return  # the step still accumulates gradients
        step = self._seen = trainer.global_step
        signal = self.signals.agreed(trainer)
        if self._validated or signal or step % self.every == 0 or trainer.fit_loop.done:
            self._validated = False
            self._save(trainer)
        if signal:
            raise Interrupted(signal)

    def _save(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            trainer.save_checkpoint(self.path, weights_only=False)
        self.saved = trainer.global_step  # a second signal may have come before this


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt after the validation with the best score."""

    def __init__(
        self, folder: Path, score: str, mode: Literal["max", "min"], protocol: Mapping[str, Any]
    ) -> None:
        self.protocol = dict(protocol)
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=f"val/{score}",
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # with the validation, so that last.ckpt holds its score
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, with the settings for which it holds."""
        return {**super().state_dict(), "protocol": self.protocol}

    def continues(self, checkpoint: Mapping[str, Any]) -> bool:
        """Return whether scores will be comparable with the best one that a checkpoint knows."""
        match checkpoint.get("callbacks"):
            case {self.state_key: {"protocol": protocol}}:
                return protocol == self.protocol
        return True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score even if the run folder was moved; Lightning would then forget it.

        If the validation has changed, begin anew: its scores cannot be compared.
        """
        if state_dict.get("protocol", self.protocol) != self.protocol:
            return
        assert self.dirpath is not None
        best, score = Path(self.dirpath) / "best.ckpt", state_dict["best_model_score"]
        if score is not None and best.is_file():
            paths = {"dirpath": self.dirpath, "best_model_path": str(best), "kth_best_model_path": str(best)}
            super().load_state_dict(state_dict | paths | {"best_k_models": {str(best): score}})
