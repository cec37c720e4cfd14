"""Regressor: what a learner has whose answers are values."""

from typing import Protocol, runtime_checkable

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier
from leo_lightning.learners.parts.normal_mixture import Predictive


@runtime_checkable
class Regressor(Protocol):
    """A learner for tasks of one function each: N = 1, and a point is its inputs and the value there."""

    def predictive(self, episode: Episode, final: Classifier) -> Predictive:
        """Distribution of the value of each query, noise included.

        Args:
            episode: B tasks.
            final: what adaptation made of their support, with the means of all that is drawn.
        """
        ...
