"""A multilayer perceptron whose weights are a task's own, and gradient descent on them.

Tasks are a batch dimension, and the gradient of the inner loss is written out layer by layer: the inner loop
also runs under `inference_mode`, and the outer gradient, of second order, is an ordinary backward pass.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.learners.parts.networks import relu_backward


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
        """Outputs of the networks."""
        outputs = activations(self.layers, query.flatten(1, -2))[-1]
        return outputs.unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "MLPClassifier":
        """The networks of some of the tasks."""

        def chosen(layer: Layer) -> Layer:
            return Layer(layer.weight[tasks], layer.bias[tasks])

        # a layer that all tasks share stays shared
        body = [layer if len(layer.weight) == 1 else chosen(layer) for layer in self.layers[:-1]]
        return type(self)([*body, chosen(self.layers[-1])])


def activations(layers: Sequence[Layer], images: Float[Tensor, "#B M inputs"]) -> list[Tensor]:
    """Inputs of each layer (the images, then ReLU of the layer before), and last the outputs."""
    inputs = [images]
    for layer in layers[:-1]:
        inputs.append(linear(inputs[-1], layer).relu_())
    return [*inputs, linear(inputs[-1], layers[-1])]


def gradient(
    layers: Sequence[Layer], inputs: list[Tensor], slope: Float[Tensor, "B M outputs"]
) -> list[Layer]:
    """Gradient of each task's loss by all layers, from the `activations` and the gradient by the outputs."""
    gradients = []
    for layer, x in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
        gradients.append(Layer(slope.transpose(1, 2) @ x, slope.sum(1)))
        if len(gradients) < len(layers):
            weight = layer.weight[0] if len(layer.weight) == 1 else layer.weight
            slope = relu_backward(slope @ weight, x)
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

    `loss_slope` maps outputs to the gradient of each task's loss by them. With `first_order`, gradients of L
    are constants in the outer gradient.
    """
    for _ in range(steps):
        with torch.no_grad() if first_order else nullcontext():
            inputs = activations(layers, images)
            gradients = gradient(layers, inputs, loss_slope(inputs[-1]))
        layers = [
            Layer(layer.weight - rate.weight * slope.weight, layer.bias - rate.bias * slope.bias)
            for layer, rate, slope in zip(layers, rates, gradients, strict=True)
        ]
    return list(layers)


def linear(inputs: Float[Tensor, "#B M inputs"], layer: Layer) -> Float[Tensor, "#B M outputs"]:
    """Outputs of a layer of each task."""
    weight, bias = layer
    if len(weight) == 1:
        return F.linear(inputs, weight[0], bias[0])
    if len(inputs) == 1:  # the same images for all tasks: one product
        outputs = (weight.flatten(0, 1) @ inputs[0].T).unflatten(0, weight.shape[:2])
        return outputs.transpose(1, 2) + bias[:, None]
    if inputs.shape[2] == 1:  # a product of vectors, a tenth of the time
        return torch.addcmul(bias[:, None], inputs, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))
