"""Signals that end a run: it stops after the step at hand, with a checkpoint of it."""

import os
import signal
import subprocess
from types import FrameType

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

from leo_lightning.common.errors import Interrupted

AGREE_EVERY = 10
"""Steps between two times that several processes ask each other for signals."""


class StopSignals(Callback):
    """Takes SIGINT (Ctrl-C), SIGTERM and, in a SLURM job, SIGUSR1, which also puts the job back in the queue.

    The first signal in training is kept until the step is over; see `agreed`. A second one ends the run at
    once, and so does any signal in an evaluation, where there is nothing to save. Lightning's own handlers,
    which are replaced, save in the middle of a step.
    """

    def __init__(self) -> None:
        self.received = 0
        self.at_once = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen; Lightning has just installed its own handlers and restores the former ones in the end."""
        self._listen()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, if this is no part of training."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._listen(at_once=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listen(at_once=True)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listen(at_once=True)

    def agreed(self, trainer: pl.Trainer) -> int:
        """The signal to stop at, or 0; the same on all processes: they have to stop after the same step."""
        if trainer.world_size == 1:
            return self.received
        if trainer.global_step % AGREE_EVERY and trainer.global_step != trainer.max_steps:
            return 0
        mine = torch.tensor(self.received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))  # pyright: ignore[reportArgumentType]

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Put a SLURM job back in the queue; leave no process behind that this one has started."""
        requeued = isinstance(exception, Interrupted) and exception.signal == signal.SIGUSR1
        if requeued and trainer.is_global_zero:
            requeue()
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)

    def _listen(self, at_once: bool = False) -> None:
        self.received, self.at_once = 0, at_once
        in_slurm = SLURMEnvironment.job_id() is not None
        for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if in_slurm else [])):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received or self.at_once:
            raise Interrupted(number)
        self.received = number


def requeue() -> None:
    """Ask SLURM to run this job, or this task of an array, once more."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    subprocess.run(["scontrol", "requeue", job], check=False)
