"""Adam with written-out gradients, for weights that every task has of its own.

Kingma, Ba: Adam: A Method for Stochastic Optimization. ICLR 2015, Algorithm 1, with its default β1, β2 and ε.
`torch.optim.Adam` needs autograd, which `inference_mode` forbids.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def adam(
    start: Sequence[Tensor], gradients: Callable[[list[Tensor]], Sequence[Tensor]], rate: float, steps: int
) -> list[Tensor]:
    """Weights after `steps` steps; `gradients` maps weights to the gradient of each task's loss."""
    weights = list(start)
    first = [torch.zeros_like(weight) for weight in weights]
    second = [torch.zeros_like(weight) for weight in weights]
    for step in range(1, steps + 1):
        for i, gradient in enumerate(gradients(weights)):
            first[i] = BETA1 * first[i] + (1 - BETA1) * gradient
            second[i] = BETA2 * second[i] + (1 - BETA2) * gradient.square()
            root = (second[i] / (1 - BETA2**step)).sqrt() + EPSILON
            weights[i] = weights[i] - rate / (1 - BETA1**step) * first[i] / root
    return weights
