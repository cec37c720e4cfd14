"""A multilayer perceptron with ReLU: the base learner of the paper's regression (Section 4.1)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.learners.parts.fast_weights import Layer, MLPClassifier, activations, gradient


class MLPRegressor(BaseLearner):
    """One code generates all weights and biases of a task's network; its loss is the squared error.

    An example is a point: its inputs, then the number that is to be predicted from them.

    Args:
        inputs: numbers that a prediction is made from.
        hidden_sizes: sizes of the hidden layers: with one input, 40 and 40 make 1,761 parameters.
    """

    predicts = "values"

    def __init__(self, inputs: int = 1, hidden_sizes: Sequence[int] = (40, 40)) -> None:
        check_least(1, {"inputs": inputs, "hidden_sizes": min(hidden_sizes, default=None)})
        self.inputs = inputs
        self.hidden_sizes = list(hidden_sizes)

    def initial(self, embedding_size: int) -> Float[Tensor, " D"]:
        """See `BaseLearner`. Glorot-uniform weights, biases of zero; D = Σ (inputs + 1) · outputs."""
        if embedding_size != self.inputs + 1:
            raise InputError(
                f"inputs is {self.inputs}, and a point of the data has {embedding_size - 1} and its value; "
                f"set model.learner.base.inputs to {embedding_size - 1}"
            )
        layers = [
            (nn.init.xavier_uniform_(torch.empty(b, a)), torch.zeros(b)) for a, b in pairwise(self._sizes())
        ]
        return torch.cat([part.flatten() for layer in layers for part in layer])

    def predictor(self, theta: Float[Tensor, "B 1 D"]) -> "Function":
        """See `BaseLearner`."""
        return Function(self._layers(theta))

    def support_gradient(
        self, theta: Float[Tensor, "B 1 D"], support: Float[Tensor, "B 1 K E"]
    ) -> Float[Tensor, "B 1 D"]:
        """See `BaseLearner`. Of Σ (f(x) - y)²."""
        points, layers = support[:, 0], self._layers(theta)
        found = activations(layers, points[..., :-1])
        by_layer = gradient(layers, found, 2 * (found[-1] - points[..., -1:]))
        parts = [part.flatten(1) for layer in by_layer for part in layer]
        return torch.cat(parts, dim=1)[:, None]

    def query_loss(
        self,
        prediction: Float[Tensor, "B 1 Q 1"],
        query: Float[Tensor, "B 1 Q E"],
        valid: Bool[Tensor, "B 1 Q"] | None,
    ) -> Float[Tensor, " B"]:
        """See `BaseLearner`. Mean of (f(x) - y)²."""
        return (prediction - query[..., -1:]).square().flatten(1).mean(1)

    def _sizes(self) -> list[int]:
        return [self.inputs, *self.hidden_sizes, 1]

    def _layers(self, theta: Float[Tensor, "B 1 D"]) -> list[Layer]:
        """θ as weights and biases, layer by layer."""
        sizes = list(pairwise(self._sizes()))
        parts = iter(theta[:, 0].split([n for a, b in sizes for n in (a * b, b)], dim=1))
        return [Layer(next(parts).unflatten(1, (b, a)), next(parts)) for a, b in sizes]


class Function(NamedTuple):
    """The network of each task: points to the number predicted from their inputs."""

    layers: Sequence[Layer]

    def __call__(self, query: Float[Tensor, "#B *points E"]) -> Float[Tensor, "B *points 1"]:
        """See `Classifier`. What a point has last, the true number, is not looked at."""
        return MLPClassifier(self.layers)(query[..., :-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "Function":
        """See `Classifier`."""
        return Function([Layer(layer.weight[tasks], layer.bias[tasks]) for layer in self.layers])
