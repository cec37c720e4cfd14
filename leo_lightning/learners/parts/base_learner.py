"""Base learner: the network that LEO generates for a task, and the loss that it is adapted with.

It holds no parameters of its own: all of them, θ, are decoded from a latent code. Algorithm 1 needs no more
than these methods, so another base learner is a small file.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier


class BaseLearner(ABC):
    """Pure functions of θ, for B tasks with N codes each: one for each class, or a single one.

    As in scikit-learn, every argument of `__init__` is kept in an attribute of its name.
    """

    predicts: ClassVar[Literal["classes", "values"]]
    """Kind of answers, as in `Learner.predicts`."""

    @abstractmethod
    def initial(self, embedding_size: int) -> Float[Tensor, " D"]:
        """The parameters that training begins with, whatever the code; E numbers are an example."""

    @abstractmethod
    def predictor(self, theta: Float[Tensor, "B N D"]) -> Classifier:
        """The networks with these parameters."""

    @abstractmethod
    def support_gradient(
        self, theta: Float[Tensor, "B N D"], support: Float[Tensor, "B N K E"]
    ) -> Float[Tensor, "B N D"]:
        """Gradient of each task's loss, *summed* over its support: an ordinary tensor expression."""

    @abstractmethod
    def query_loss(self, prediction: Float[Tensor, "B N Q outputs"], episode: Episode) -> Float[Tensor, " B"]:
        """Mean loss of each task's queries."""
