"""Signals that end a run: it stops after the current step, with a checkpoint of it."""

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
    """Handles SIGINT (Ctrl-C), SIGTERM, SIGHUP and, in a SLURM job, SIGUSR1, which also requeues the job.

    SIGUSR2 of a SLURM job stops it, too: submitit, which has asked for that signal, requeues the job then.
    The first signal during training is kept until the step is over (see `agreed`). A second one ends the run
    at once, and so does any signal during an evaluation, where there is nothing to save. A pipe whose reader
    has gone counts as a signal, SIGPIPE (see `RunConsole`). This replaces Lightning's own handlers, which
    save in the middle of a step.
    """

    def __init__(self) -> None:
        self.received = self._agreed = 0
        self.at_once = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen; Lightning has just installed its own handlers, and restores the former ones at the end."""
        self._listen()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, unless this is part of training."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._listen(at_once=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listen(at_once=True)

    on_predict_start = on_test_start

    def agreed(self, trainer: pl.Trainer) -> int:
        """The signal to stop at, or 0: the same on all processes, so that they stop after the same step."""
        if trainer.world_size == 1:
            return self.received
        if trainer.global_step % AGREE_EVERY and trainer.global_step != trainer.max_steps:
            return 0
        mine = torch.tensor(self.received, device=trainer.strategy.root_device)
        self._agreed = int(trainer.strategy.reduce(mine, reduce_op="max"))  # pyright: ignore[reportArgumentType]
        return self._agreed

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Requeue a SLURM job; leave no process behind that this one has started."""
        requeued = isinstance(exception, Interrupted) and exception.signal == signal.SIGUSR1
        if requeued and trainer.is_global_zero:
            job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
            task = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
            subprocess.run(["scontrol", "requeue", task], check=False)
        # processes that have agreed to stop end by themselves; if one is killed, Lightning kills this one
        if trainer.strategy.launcher is not None and not self._agreed:
            trainer.strategy.launcher.kill(signal.SIGKILL)

    def _listen(self, at_once: bool = False) -> None:
        self.at_once = at_once
        if self.received:  # after the last step of a training
            raise Interrupted(self.received)
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if SLURMEnvironment.job_id() is not None:
            numbers += [signal.SIGUSR1, signal.SIGUSR2]
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self.receive)

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Keep a signal until the step is over, or end the run."""
        if {self.received, number} == {signal.SIGTERM, signal.SIGUSR2}:  # SLURM sends both
            self.received = signal.SIGUSR2
            return
        if self.received or self.at_once:
            raise Interrupted(number)
        self.received = number
