"""View: what pictures are drawn from, a learner at one training step and its validation tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from leo_lightning.data.episode import Episode
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import Learner
from leo_lightning.training.task_scores import TaskScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = 100  # the first validation tasks, which pictures look at more closely than a validation does
BATCH = 50  # tasks adapted to at once


class Picture(NamedTuple):
    """A figure and the numbers behind it, or a table alone."""

    rows: list[list[Any]]  # the first row holds the column names
    figure: "Figure | None" = None  # None for a table


@dataclass(frozen=True)
class View:
    """A learner and its validation tasks.

    Attributes:
        learner: in evaluation mode.
        data: source of the validation tasks.
        device: device of the learner.
        dtype: floating point type of its weights.
        scores: scores of all validation tasks at this step; None if no validation was made here.
    """

    learner: Learner
    data: TaskDataModule
    device: torch.device
    dtype: torch.dtype
    scores: TaskScores | None

    def episode(self, tasks: Sequence[int]) -> Episode:
        """The validation tasks with these numbers."""
        return self.data.episode(tasks, "validate", self.device).in_precision(self.dtype)

    def episodes(self) -> Iterator[Episode]:
        """The first validation tasks in meta-batches."""
        last = min(TASKS, self.data.val_tasks)
        for first in range(0, last, BATCH):
            yield self.episode(range(first, min(first + BATCH, last)))
