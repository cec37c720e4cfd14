"""View: what pictures are drawn from, a learner at a step of its training and validation tasks."""

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

TASKS = 100
"""Validation tasks, the first ones, that are looked at more closely than a validation does."""
BATCH = 50
"""As many of them at once."""


class Picture(NamedTuple):
    """What there is to see, and the numbers behind it."""

    rows: list[list[Any]]
    """Names of columns first."""
    figure: "Figure | None" = None
    """None for what is a table."""


@dataclass(frozen=True)
class View:
    """A learner and validation tasks.

    Attributes:
        learner: in evaluation mode.
        data: whose validation tasks are taken.
        device: where the learner is.
        dtype: that of its weights.
        scores: of all tasks of the validation of this very step; None if there was none.
    """

    learner: Learner
    data: TaskDataModule
    device: torch.device
    dtype: torch.dtype
    scores: TaskScores | None

    def episode(self, tasks: Sequence[int]) -> Episode:
        """The validation tasks of these numbers."""
        return self.data.episode(tasks, "validate", self.device).in_precision(self.dtype)

    def episodes(self) -> Iterator[Episode]:
        """The first validation tasks."""
        last = min(TASKS, self.data.val_tasks)
        for first in range(0, last, BATCH):
            yield self.episode(range(first, min(first + BATCH, last)))
