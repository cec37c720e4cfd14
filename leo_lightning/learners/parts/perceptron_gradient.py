"""Gradient of the squared error of a perceptron with weights of its own for each task, and its derivative.

With inputs xₗ₋₁ of layer l, ReLU between layers, and the slope sₗ of the loss L = Σ (f(x) - y)² by aₗ:

    aₗ = xₗ₋₁ Wₗᵀ + bₗ        xₗ = relu(aₗ)
    s = 2 (f - y) at the last layer, and sₗ₋₁ = [xₗ₋₁ > 0] ⊙ (sₗ Wₗ)
    ∂L/∂Wₗ = sₗᵀ xₗ₋₁         ∂L/∂bₗ = Σ sₗ

The Hessian's product with a vector (V, v) is the derivative of these lines in its direction (Pearlmutter,
1994). With dots for derivatives and ẋ₀ = 0:

    ȧₗ = ẋₗ₋₁ Wₗᵀ + xₗ₋₁ Vₗᵀ + vₗ        ẋₗ = [xₗ > 0] ⊙ ȧₗ
    ṡ = 2 ȧ at the last layer, and ṡₗ₋₁ = [xₗ₋₁ > 0] ⊙ (ṡₗ Wₗ + sₗ Vₗ)
    by Wₗ: ṡₗᵀ xₗ₋₁ + sₗᵀ ẋₗ₋₁           by bₗ: Σ ṡₗ
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.parts.fast_weights import Layer, activations, linear
from leo_lightning.learners.parts.networks import relu_backward


class Passed(NamedTuple):
    """Values of a gradient that its derivative needs, layer by layer."""

    inputs: list[Float[Tensor, "B M _inputs"]]
    slopes: list[Float[Tensor, "B M _outputs"]]


def layers_of(theta: Float[Tensor, "B D"], sizes: Sequence[int]) -> list[Layer]:
    """Views of θ as weights and biases; `sizes` are numbers of inputs, of hidden units, and of outputs."""
    shapes = list(pairwise(sizes))
    parts = iter(theta.split([n for a, b in shapes for n in (a * b, b)], dim=1))
    return [Layer(next(parts).unflatten(1, (b, a)), next(parts)) for a, b in shapes]


def squared_error_gradient(
    layers: Sequence[Layer], points: Float[Tensor, "B M E"], out: Sequence[Layer]
) -> Passed:
    """Write the gradient by the layers to `out`; the last number of a point is y, the others are x."""
    *inputs, answers = activations(layers, points[..., :-1])
    slopes = [(answers - points[..., -1:]).mul_(2)]
    for number in reversed(range(len(layers))):
        slope, x = slopes[0], inputs[number]
        _by_weight(slope, x, out[number].weight)
        torch.sum(slope, 1, out=out[number].bias)
        if number:
            slopes.insert(0, relu_backward(_by_inputs(slope, layers[number].weight), x))
    return Passed(inputs, slopes)


def hessian_product(
    layers: Sequence[Layer], passed: Passed, direction: Sequence[Layer], out: Sequence[Layer]
) -> None:
    """Write the Hessian's product with a vector to `out`."""
    inputs, slopes = passed
    moves: list[Tensor] = []  # ẋ, from the first hidden layer on
    moved = inputs[0]
    for number, (layer, along) in enumerate(zip(layers, direction, strict=True)):
        moved = linear(inputs[number], along)
        if number:
            moved.baddbmm_(moves[-1], layer.weight.mT)
        if number + 1 < len(layers):
            moves.append(relu_backward(moved, inputs[number + 1]))
    slope = 2 * moved
    for number in reversed(range(len(layers))):
        _by_weight(slope, inputs[number], out[number].weight)
        torch.sum(slope, 1, out=out[number].bias)
        if number:
            out[number].weight.add_(torch.bmm(slopes[number].mT, moves[number - 1]))
            slope = _by_inputs(slope, layers[number].weight)
            slope += _by_inputs(slopes[number], direction[number].weight)
            slope = relu_backward(slope, inputs[number])


def _by_inputs(slope: Float[Tensor, "B M outputs"], weight: Float[Tensor, "B outputs inputs"]) -> Tensor:
    # a product of vectors takes a tenth of the time of one of matrices
    return slope * weight if slope.shape[2] == 1 else torch.bmm(slope, weight)


def _by_weight(slope: Tensor, x: Tensor, out: Tensor) -> None:
    if min(out.shape[1:]) == 1:
        torch.sum(slope[..., None] * x[:, :, None], 1, out=out)
    else:
        torch.bmm(slope.mT, x, out=out)
