"""TaskDataModule: streams of tasks, whatever they are made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.data.loader import EpisodeStream, StreamLoader

SPLITS = {"fit": "train", "validate": "val", "test": "test", "predict": "test"}
"""Which tasks a stage is about."""


class TaskDataModule(pl.LightningDataModule, ABC):
    """Tasks of a train, a val and a test split, each a function of its number.

    Args:
        batch_size: B, tasks per meta-batch and process.
        eval_batch_size: tasks evaluated at once; null: what suits the tasks.
        steps_per_epoch: meta-batches that count as an epoch: validation follows each.
        val_tasks: number of validation tasks.
        test_tasks: number of test tasks.
        predict_tasks: number of test tasks to predict.
        num_workers: processes that sample tasks; 0 samples in the main process.
        eval_seed: seed of validation and test tasks.
        seed: seed of the training tasks; null: that of seed_everything.
    """

    train_on_val = False
    """Whether the validation tasks are trained on, too, so that there are none to validate on."""
    asks: ClassVar[Literal["classes", "values"]]
    """What is to be predicted of a query: see `Learner.predicts`."""
    longer_test: ClassVar[str] = ""
    """Flags of a test by another protocol, after a space."""

    def __init__(
        self,
        batch_size: int,
        eval_batch_size: int | None,
        steps_per_epoch: int,
        val_tasks: int,
        test_tasks: int,
        predict_tasks: int,
        num_workers: int,
        eval_seed: int,
        seed: int | None,
    ) -> None:
        super().__init__()
        positive = {
            "batch_size": batch_size, "eval_batch_size": eval_batch_size, "steps_per_epoch": steps_per_epoch,
            "val_tasks": val_tasks, "test_tasks": test_tasks, "predict_tasks": predict_tasks,
        }  # fmt: skip
        check_least(1, {f"data.{name}": value for name, value in positive.items()})
        check_least(0, {"data.num_workers": num_workers})
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.steps_per_epoch = steps_per_epoch
        self.val_tasks, self.test_tasks, self.predict_tasks = val_tasks, test_tasks, predict_tasks
        self.num_workers = num_workers
        self.eval_seed = eval_seed
        self.seed = seed or 0

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """E."""

    @abstractmethod
    def sampler(self, stage: str) -> Callable[[Sequence[int]], Any]:
        """Task numbers to a meta-batch, for a stage of Lightning's; it may be sent to workers."""

    @abstractmethod
    def usual_batch(self, stage: str) -> int:
        """How many tasks are evaluated at once unless `eval_batch_size` says otherwise."""

    @abstractmethod
    def title(self) -> str:
        """The test's tasks, in a line."""

    @abstractmethod
    def kind(self) -> str:
        """The kind of task, for the line of the learner as a run begins."""

    @abstractmethod
    def banner(self, stage: str) -> str:
        """The data of a stage, in a line."""

    @abstractmethod
    def protocol(self) -> dict[str, int | float | str]:
        """How a test is made: what a result holds good for."""

    @abstractmethod
    def provenance(self, split: str) -> dict[str, str]:
        """Where the tasks come from."""

    def class_names(self, split: str) -> tuple[str, ...]:
        """Names of a split's classes, by their numbers in episodes; none where they have none."""
        return ()

    def episode(self, tasks: Sequence[int], stage: str, device: torch.device) -> Episode:
        """Tasks by their numbers: those that a stage of Lightning's sees.

        Args:
            tasks: their numbers.
            stage: of Lightning's.
            device: where they are wanted.
        """
        return self.transfer_batch_to_device(self.sampler(stage)(tasks), device, 0)

    # Lightning's hooks

    def train_dataloader(self) -> StreamLoader:
        """Meta-batches without end; an epoch is `steps_per_epoch` of them."""
        stream = EpisodeStream(
            self.sampler("fit"), self.batch_size, length=self.steps_per_epoch, **self._processes()
        )
        return StreamLoader(stream, self.num_workers, self._batches_done)

    def val_dataloader(self) -> StreamLoader | list:
        """The validation tasks; none with `train_on_val`."""
        return [] if self.train_on_val else self._eval_loader("validate", self.val_tasks)

    def test_dataloader(self) -> StreamLoader:
        """The test tasks."""
        return self._eval_loader("test", self.test_tasks)

    def predict_dataloader(self) -> StreamLoader:
        """The first test tasks."""
        return self._eval_loader("predict", self.predict_tasks)

    def _eval_loader(self, stage: str, tasks: int) -> StreamLoader:
        processes = self._processes()
        share = tasks // processes["world"]
        if share == 0:
            kind = {"validate": "val"}.get(stage, stage)
            raise InputError(
                f"{tasks} {SPLITS[stage]} tasks are too few for {processes['world']} processes; "
                f"raise data.{kind}_tasks"
            )
        # the smaller batch gives every process something to do
        size = min(self.eval_batch_size or self.usual_batch(stage), share)
        stream = EpisodeStream(self.sampler(stage), size, tasks=tasks, **processes)
        return StreamLoader(stream, self.num_workers)

    def _processes(self) -> dict[str, int]:
        """Number of this process, and of all."""
        trainer = self.trainer
        return (
            {"rank": 0, "world": 1}
            if trainer is None
            else {"rank": trainer.global_rank, "world": trainer.world_size}
        )

    def _batches_done(self) -> int:
        """Training batches so far, over all epochs; an overfitting run sees the same ones in every epoch."""
        trainer = self.trainer
        if trainer is None or trainer.overfit_batches:  # pyright: ignore[reportAttributeAccessIssue]
            return 0
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready
