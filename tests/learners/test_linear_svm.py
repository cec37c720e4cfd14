"""Linear support vector machines against the optimality of their own objective."""

import math

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.linear_svm import LinearSVM
from tests.learners.tasks import episode_of


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
@pytest.mark.parametrize(("N", "K", "E"), [(5, 1, 30), (5, 5, 30), (3, 4, 6), (2, 1, 30), (2, 5, 6)])
def test_the_objective_is_at_its_minimum(N: int, K: int, E: int, C: float):
    """Catches a fit that stopped early, another C or loss, rows of two classes with the wrong sign or factor.

    The objective is convex and smooth: where its gradient is zero is its only minimum. It is so for the rows
    of two classes as well: the machine of one is that of the other turned round.
    """
    support = episode_of(N, K, E=E, B=3).support
    weight, bias = (part.requires_grad_() for part in LinearSVM(C).adapt(support))
    y = 2 * torch.eye(N).repeat_interleave(K, dim=0) - 1
    decisions = torch.einsum("bne,bme->bmn", weight, support.flatten(1, 2)) + bias[:, None]
    hinge = (1 - y * decisions).clamp_min(0).square().sum()
    objective = C * hinge + (weight.square().sum() + bias.square().sum()) / 2
    for gradient in torch.autograd.grad(objective, (weight, bias)):
        assert gradient.abs().max() < 1e-4 * max(1, C)
    assert weight.abs().max() > 0.1


@pytest.mark.parametrize("C", [0.0, -1.0, math.nan, math.inf])
def test_bad_weights_are_refused(C: float):
    """Catches a setting that fails at the first task only."""
    with pytest.raises(InputError, match="C is"):
        LinearSVM(C)
