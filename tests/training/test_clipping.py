"""Clipping against a plain loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from leo_lightning.training.clipping import clip_, gradient_norm

SHAPES = [(3, 4), (5,), (), (2, 3, 2), (1, 1)]


def gradients_of(seed: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def plainly(gradient: Tensor, max_value: float, max_norm: float) -> Tensor:
    entries = [min(max(x, -max_value), max_value) for x in gradient.flatten().tolist()]
    norm = math.sqrt(sum(x * x for x in entries))
    if norm > max_norm:
        entries = [x * max_norm / norm for x in entries]
    return torch.tensor(entries, dtype=torch.float64).view(gradient.shape)


@given(
    st.integers(0, 2**16), st.sampled_from([1e-3, 0.05, 1.0, 1e4]), st.floats(0.01, 1.0), st.floats(0.01, 1.0)
)
def test_each_tensor_is_clipped_by_value_then_by_its_own_norm(
    seed: int, scale: float, max_value: float, max_norm: float
):
    """Catches the global norm, norm before value, and small gradients that are scaled up."""
    gradients = gradients_of(seed, scale)
    expected = [plainly(gradient, max_value, max_norm) for gradient in gradients]
    clip_(gradients, max_value, max_norm)
    for found, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-12, atol=0)


def test_order_matters():
    """Catches norm before value, by hand: value first makes both entries equal."""
    gradient = torch.tensor([100.0, 0.1])
    clip_([gradient], 0.1, 0.1)
    torch.testing.assert_close(gradient, torch.tensor([0.1, 0.1]) / 2**0.5)


def test_one_tensor_does_not_shrink_another():
    """Catches the global norm, by hand."""
    large, small = torch.full((100,), 5.0), torch.tensor([0.03, -0.04])
    clip_([large, small], 0.1, 0.1)
    torch.testing.assert_close(large.norm(), torch.tensor(0.1))
    torch.testing.assert_close(small, torch.tensor([0.03, -0.04]))


def test_zero_gradients_stay_zero():
    """Catches 0 / 0."""
    gradient = torch.zeros(3)
    clip_([gradient], 0.1, 0.1)
    assert torch.equal(gradient, torch.zeros(3))


def test_clipping_is_in_place_and_leaves_no_graph():
    """Catches a clipped copy that nobody uses, and parameters that autograd refuses to change."""
    parameter = torch.nn.Parameter(torch.ones(4))
    (3 * parameter).sum().backward()
    before = parameter.grad
    clip_([p.grad for p in [parameter]], 0.1, 0.1)
    assert parameter.grad is before
    torch.testing.assert_close(before, torch.full((4,), 0.05))
    leaf = torch.full((4,), 3.0, requires_grad=True)
    clip_([leaf], 0.1, 0.1)
    torch.testing.assert_close(leaf.detach(), torch.full((4,), 0.05))


def test_gradient_norm_is_that_of_all_entries():
    """Catches a sum or a maximum of norms."""
    gradients = gradients_of(0, 2.0)
    expected = math.sqrt(sum(x * x for gradient in gradients for x in gradient.flatten().tolist()))
    assert gradient_norm(gradients).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", range(len(SHAPES)))
def test_gradient_norm_sees_one_bad_entry(bad: float, where: int):
    """Catches a bad step that goes unnoticed: one entry of one tensor must show."""
    gradients = gradients_of(0, 1.0)
    assert gradient_norm(gradients).isfinite()
    gradients[where].view(-1)[-1] = bad
    assert not gradient_norm(gradients).isfinite()
