"""Evaluation: what is measured of a learner on the tasks of a split, for all kinds of tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.training.task_scores import TaskScores


class Evaluation(ABC):
    """Collects what is measured, meta-batch by meta-batch; one serves one pass through a split."""

    score: ClassVar[str]
    """What checkpoints are chosen by, and logs call it."""
    mode: ClassVar[Literal["max", "min"]]
    """Whether more of it is better, or less."""
    columns: ClassVar[Mapping[str, tuple[str, float, str]]]
    """Of the table that a test prints: heading to what is shown, a factor, and the format."""

    @staticmethod
    @abstractmethod
    def of_step(outcome: Outcome, episode: Episode) -> Float[Tensor, ""]:
        """The score of a training step."""

    @abstractmethod
    def add(self, learner: Learner, episode: Episode, test: bool) -> Float[Tensor, " B"]:
        """Measure the tasks of a meta-batch; their loss.

        Args:
            learner: in evaluation mode.
            episode: the tasks.
            test: measure all there is, baselines too, and not only what validation needs.
        """

    @abstractmethod
    def compute(self) -> dict[str, TaskScores]:
        """Scores by stage of adaptation and by baseline; `final` is the learner's."""
