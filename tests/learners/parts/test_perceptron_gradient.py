"""Gradient and Hessian of generated perceptrons against autograd."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from leo_lightning.learners.generated_mlp import MLPRegressor

DOUBLE = torch.float64
SIZES = [(1, (4, 3)), (2, (4, 3)), (1, (1,)), (3, (5,)), (1, ()), (2, ()), (2, (3, 1, 4))]
"""Inputs and hidden layers, with those of a single unit, whose products are not products of matrices."""


def problem(inputs: int, hidden: tuple[int, ...]) -> tuple[MLPRegressor, Tensor, Tensor, Tensor]:
    """A base learner, θ, a vector and points."""
    generator = torch.Generator().manual_seed(0)
    D = sum((a + 1) * b for a, b in pairwise([inputs, *hidden, 1]))
    shapes = [(3, 1, D), (3, 1, D), (3, 1, 4, inputs + 1)]
    theta, direction, support = (torch.randn(*s, generator=generator, dtype=DOUBLE) for s in shapes)
    return MLPRegressor(inputs, hidden), theta.requires_grad_(), direction, support


@pytest.mark.parametrize(("inputs", "hidden"), SIZES)
def test_gradient_and_hessian_are_autograds(inputs: int, hidden: tuple[int, ...]):
    """Catches a ReLU that is not seen, a lost factor 2, a swapped layer, a term of the Hessian left out."""
    base, theta, direction, support = problem(inputs, hidden)
    loss = (base.predictor(theta)(support) - support[..., -1:]).square().sum()
    gradient = torch.autograd.grad(loss, theta, create_graph=True)[0]
    product = torch.autograd.grad(gradient, theta, direction)[0]
    found = base.support_gradient(theta, support)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad(found, theta, direction)[0]
    torch.testing.assert_close(mine, product, rtol=1e-12, atol=1e-12)
