"""TaskDataModule: streams of tasks, of images or of functions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import check_least
from leo_lightning.data.episode import Episode
from leo_lightning.data.loader import EpisodeStream, StreamDataModule, StreamLoader

SPLITS = {"fit": "train", "validate": "val", "test": "test", "predict": "test"}
"""The split that each stage of Lightning's uses."""


class TaskDataModule(StreamDataModule, ABC):
    """Tasks of three splits, each a function of its number; `EpisodeDataModule` explains the arguments."""

    train_on_val = False
    """Whether training uses the validation tasks, too, so that there are none to validate on."""
    asks: ClassVar[Literal["classes", "values"]]
    """The prediction for a query: its class, or its value."""
    columns: tuple[str, ...] = ("x", "value")
    """Names of the inputs and of the value, in tasks of regression."""
    longer_test: str = ""
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
        """Return the function from task numbers to a meta-batch; workers get a copy of it."""

    def usual_batch(self, stage: str) -> int:
        """Return how many tasks are evaluated at once unless `eval_batch_size` is set."""
        return 64

    def preparation(self, stage: str) -> Callable[[Any], Episode] | None:
        """Return the way from what `sampler` returns to an episode, if it is to be gone before the transfer.

        A thread goes it during the step before.
        """
        return None

    @abstractmethod
    def title(self) -> str:
        """Describe the test tasks in a line."""

    @abstractmethod
    def kind(self) -> str:
        """Name the kind of task, such as 5-way 1-shot."""

    @abstractmethod
    def banner(self, stage: str) -> str:
        """Describe the data of a stage in a line."""

    @abstractmethod
    def protocol(self) -> dict[str, int | float | str]:
        """Return the settings for which a test result holds."""

    @abstractmethod
    def validation_protocol(self) -> dict[str, int | float | str]:
        """Return all settings that validation scores depend on, beside the model."""

    @abstractmethod
    def provenance(self, split: str) -> dict[str, str]:
        """Return where the tasks come from."""

    def other_features(self, stage: str) -> list[str]:
        """Return lines about what differs from the features that the checkpoint in use was trained on."""
        return []

    def class_names(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's classes, by their numbers in episodes; none if they have no names."""
        return ()

    def queries_apart(self, stage: str) -> str:
        """Say why the queries of a task cannot be answered together, and what to set; empty if they can."""
        return ""

    def query_points(self, episode: Episode) -> Float[Tensor, "B Q E"]:
        """Return the queries of test tasks of regression in the user's units."""
        return episode.query[:, 0].cpu()

    def episode(self, tasks: Sequence[int], stage: str, device: torch.device) -> Episode:
        """Return the tasks with the given numbers, as they are in a stage, on a device."""
        return self.transfer_batch_to_device(self.sampler(stage)(tasks), device, 0)

    # Lightning's hooks

    def train_dataloader(self) -> StreamLoader:
        """Load meta-batches without end; an epoch is `steps_per_epoch` of them."""
        stream = EpisodeStream(
            self.sampler("fit"), self.batch_size, length=self.steps_per_epoch, **self.processes
        )
        return StreamLoader(stream, self.num_workers, self.batches_done, self.preparation("fit"))

    def val_dataloader(self) -> StreamLoader | list:
        """Load the validation tasks; none with `train_on_val`."""
        return [] if self.train_on_val else self._eval_loader("validate", self.val_tasks)

    def test_dataloader(self) -> StreamLoader:
        """Load the test tasks."""
        return self._eval_loader("test", self.test_tasks)

    def predict_dataloader(self) -> StreamLoader:
        """Load the first test tasks."""
        return self._eval_loader("predict", self.predict_tasks)

    def _eval_loader(self, stage: str, tasks: int) -> StreamLoader:
        processes = self.processes
        field = "val" if stage == "validate" else stage
        check_least(processes["world"], {f"data.{field}_tasks": tasks})
        # at most this process's share, so that every process has a batch
        size = min(self.eval_batch_size or self.usual_batch(stage), tasks // processes["world"])
        stream = EpisodeStream(self.sampler(stage), size, tasks=tasks, **processes)
        return StreamLoader(stream, self.num_workers, prepare=self.preparation(stage))
