"""Evaluation: the scores of a learner on the tasks of a split, whatever kind the tasks are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.training.task_scores import TaskScores, TaskTable


class Evaluation(ABC):
    """Collects scores, meta-batch by meta-batch. An instance serves one pass through a split."""

    score: ClassVar[str]
    """Name of the score in logs; the best checkpoint is chosen by it."""
    mode: ClassVar[Literal["max", "min"]]
    """Whether the best score is the highest or the lowest."""
    columns: ClassVar[Mapping[str, tuple[str, float, str]]]
    """Columns of the table that a test prints: heading to name of the number, factor, and format."""

    def __init__(self) -> None:
        self.table = TaskTable()

    @staticmethod
    @abstractmethod
    def of_step(outcome: Outcome, episode: Episode) -> Float[Tensor, ""]:
        """Score a training step."""

    @abstractmethod
    def add(self, learner: Learner, episode: Episode, test: bool) -> Float[Tensor, " B"]:
        """Score the tasks of a meta-batch, and return their losses.

        Args:
            learner: in evaluation mode.
            episode: the tasks.
            test: add baselines and other scores that validation does not need.
        """

    def compute(self) -> dict[str, TaskScores]:
        """Scores of all tasks so far, by stage of adaptation and by baseline; `final` is the learner's."""
        return self.table.compute()
