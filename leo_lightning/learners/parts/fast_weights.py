"""A multilayer perceptron whose weights are a task's own, and gradient descent on them.

Tasks are a batch dimension, and the gradient of the inner loss is written out layer by layer. So the inner
loop needs no autograd and also runs under `inference_mode`, and the outer gradient through it, of second
order, is an ordinary backward pass.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


class Layer(NamedTuple):
    """A linear layer of each task: outputs = inputs · weightᵀ + bias. One task may stand for all B."""

    weight: Float[Tensor, "#B _outputs _inputs"]
    bias: Float[Tensor, "#B _outputs"]


class Rate(NamedTuple):
    """Step sizes of a layer: numbers, or tensors that broadcast to its weight and bias."""

    weight: Float[Tensor, "..."] | float
    bias: Float[Tensor, "..."] | float


class MLPClassifier(NamedTuple):
    """A multilayer perceptron of each task, with ReLU between its layers; the last is each task's own."""

    layers: Sequence[Layer]

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """See `Classifier`."""
        outputs = activations(self.layers, query.flatten(1, -2))[-1]
        return outputs.unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "MLPClassifier":
        """See `Classifier`."""
        *body, head = self.layers
        # what all tasks share stays shared
        body = [layer if len(layer.weight) == 1 else _rows(layer, tasks) for layer in body]
        return MLPClassifier([*body, _rows(head, tasks)])


def activations(
    layers: Sequence[Layer], images: Float[Tensor, "#B M inputs"]
) -> list[Float[Tensor, "#B M _width"]]:
    """What each layer is given (the images, then ReLU of the layer before), and last the outputs."""
    found = [images]
    for layer in layers[:-1]:
        found.append(_linear(found[-1], layer).relu())
    return [*found, _linear(found[-1], layers[-1])]


def gradient(
    layers: Sequence[Layer], found: Sequence[Float[Tensor, "B M _width"]], slope: Float[Tensor, "B M outputs"]
) -> list[Layer]:
    """Gradient of each task's loss with respect to all its layers.

    Args:
        layers: at which the gradient is taken.
        found: their `activations` for each task's images.
        slope: gradient of the loss with respect to the outputs.
    """
    gradients = []
    for layer, inputs in zip(reversed(layers), reversed(found[:-1]), strict=True):
        gradients.append(Layer(slope.transpose(1, 2) @ inputs, slope.sum(1)))
        if len(gradients) < len(layers):
            weight = layer.weight[0] if len(layer.weight) == 1 else layer.weight
            slope = (slope @ weight) * (inputs > 0)
    return gradients[::-1]


def descend(
    layers: Sequence[Layer],
    images: Float[Tensor, "B M inputs"],
    loss_slope: Callable[[Float[Tensor, "B M outputs"]], Float[Tensor, "B M outputs"]],
    rates: Sequence[Rate],
    steps: int,
    first_order: bool = False,
) -> list[Layer]:
    """Adapt the layers to every task: θ ← θ − rate ⊙ ∇L(θ), `steps` times.

    Args:
        layers: before adaptation.
        images: each task's inputs.
        loss_slope: gradient of each task's loss with respect to the outputs.
        rates: step sizes of each layer.
        steps: number of updates.
        first_order: take the gradients of L for constants in the outer gradient.
    """
    for _ in range(steps):
        with torch.no_grad() if first_order else nullcontext():
            found = activations(layers, images)
            gradients = gradient(layers, found, loss_slope(found[-1]))
        layers = [
            Layer(layer.weight - rate.weight * by.weight, layer.bias - rate.bias * by.bias)
            for layer, rate, by in zip(layers, rates, gradients, strict=True)
        ]
    return list(layers)


def _linear(inputs: Float[Tensor, "#B M inputs"], layer: Layer) -> Float[Tensor, "#B M outputs"]:
    weight, bias = layer
    if len(weight) == 1:
        return F.linear(inputs, weight[0], bias[0])
    if len(inputs) == 1:  # the same images for all tasks: one product
        outputs = (weight.flatten(0, 1) @ inputs[0].T).unflatten(0, weight.shape[:2])
        return outputs.transpose(1, 2) + bias[:, None]
    return torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))


def _rows(layer: Layer, tasks: Int64[Tensor, " P"]) -> Layer:
    return Layer(layer.weight[tasks], layer.bias[tasks])
