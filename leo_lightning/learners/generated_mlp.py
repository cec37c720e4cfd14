"""A multilayer perceptron with ReLU: the base learner of the paper's regression (Section 4.1)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.learners.parts.fast_weights import Layer, MLPClassifier
from leo_lightning.learners.parts.perceptron_gradient import (
    Passed,
    hessian_product,
    layers_of,
    squared_error_gradient,
)


class MLPRegressor(BaseLearner):
    """One code generates all weights and biases of a task's network; its loss is the squared error.

    An example is a point: its inputs, then the number that is to be predicted from them.

    Args:
        inputs: numbers that a prediction is made from; null: taken from the data.
        hidden_sizes: sizes of the hidden layers: with one input, 40 and 40 make 1,761 parameters.
    """

    predicts = "values"

    def __init__(self, inputs: int | None = None, hidden_sizes: Sequence[int] = (40, 40)) -> None:
        check_least(1, {"inputs": inputs, "hidden_sizes": min(hidden_sizes, default=None)})
        self.inputs = inputs
        self.hidden_sizes = list(hidden_sizes)

    def initial(self, embedding_size: int) -> Float[Tensor, " D"]:
        """Glorot-uniform weights, biases of zero; D = Σ (inputs + 1) · outputs."""
        self.inputs = self.inputs or embedding_size - 1
        if embedding_size != self.inputs + 1:
            raise InputError(
                f"inputs is {self.inputs}, and a point of the data has {embedding_size - 1} and its value; "
                f"set model.learner.base.inputs to {embedding_size - 1}"
            )
        parts: list[Tensor] = []
        for a, b in pairwise(self._sizes()):
            parts += [nn.init.xavier_uniform_(torch.empty(b, a)).flatten(), torch.zeros(b)]
        return torch.cat(parts)

    def predictor(self, theta: Float[Tensor, "B 1 D"]) -> "Function":
        """The networks with these parameters."""
        return Function(self._layers(theta))

    def gradient(
        self, theta: Float[Tensor, "B 1 D"], support: Float[Tensor, "B 1 K E"], out: Float[Tensor, "B 1 D"]
    ) -> Passed:
        """Gradient of Σ (f(x) - y)²."""
        return squared_error_gradient(self._layers(theta), support[:, 0], self._layers(out))

    def hessian_product(
        self,
        theta: Float[Tensor, "B 1 D"],
        support: Float[Tensor, "B 1 K E"],
        passed: Passed,
        direction: Float[Tensor, "B 1 D"],
        out: Float[Tensor, "B 1 D"],
    ) -> None:
        """Product with the Hessian of Σ (f(x) - y)²."""
        hessian_product(self._layers(theta), passed, self._layers(direction), self._layers(out))

    def query_loss(self, prediction: Float[Tensor, "B 1 Q 1"], episode: Episode) -> Float[Tensor, " B"]:
        """Mean of (f(x) - y)²."""
        return (prediction - episode.query[..., -1:]).square().flatten(1).mean(1)

    def _sizes(self) -> list[int]:
        """Numbers of inputs, of hidden units, and of outputs."""
        assert self.inputs is not None
        return [self.inputs, *self.hidden_sizes, 1]

    def _layers(self, theta: Float[Tensor, "B 1 D"]) -> list[Layer]:
        """θ as weights and biases, layer by layer."""
        return layers_of(theta[:, 0], self._sizes())


class Function(MLPClassifier):
    """The network of each task: points to the number predicted from their inputs."""

    def __call__(self, query: Float[Tensor, "#B *points E"]) -> Float[Tensor, "B *points 1"]:
        """Predictions. The last number of a point, the true value, is not looked at."""
        return super().__call__(query[..., :-1])
