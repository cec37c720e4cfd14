"""The inner loop against a loop that lets autograd find the gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leo_lightning.learners.parts.inner_loop import adapt
from leo_lightning.learners.parts.objectives import support_gradient

DOUBLE = torch.float64


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def summed_loss(support: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy summed over all images of all tasks: its gradient by one task is that task's own."""
    logits = torch.einsum("bnke,bme->bnkm", support, weight)
    return -sum(logits[:, n].log_softmax(-1)[..., n].sum() for n in range(support.shape[1]))


def by_autograd(start: Tensor, loss: Callable[[Tensor], Tensor], rate: Tensor, steps: int) -> list[Tensor]:
    iterates = [start]
    for _ in range(steps):
        slope = torch.autograd.grad(loss(iterates[-1]), iterates[-1], create_graph=True)[0]
        iterates.append(iterates[-1] - rate * slope)
    return iterates


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_and_second_order_gradients_are_autograds(steps: int):
    """Catches a detached inner gradient: start, rate and support must feel every later step."""
    support, start, rate = randn(2, 3, 2, 4), randn(2, 3, 4, seed=1), randn(4, seed=2).abs()
    leaves = [x.requires_grad_() for x in (support, start, rate)]
    found = adapt(start, lambda w, _: support_gradient(support, w), rate, steps)
    expected = by_autograd(start, lambda w: summed_loss(support, w), rate, steps)
    assert found[0] is start
    assert len(found) == steps + 1
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    target = randn(2, 3, 4, seed=3)
    slopes = [torch.autograd.grad((x[-1] * target).sum(), leaves) for x in (found, expected)]
    for mine, other in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)
    # first order would leave the start's slope at the target
    assert (slopes[0][1] - target).abs().max() > 0.01


def test_second_order_gradient_by_finite_differences():
    """Catches an inner loop and a reference loop that are wrong together."""
    support, start, rate = randn(1, 2, 2, 3), randn(1, 2, 3, seed=1), randn(3, seed=2).abs()

    def last(support: Tensor, start: Tensor, rate: Tensor) -> Tensor:
        return adapt(start, lambda w, _: support_gradient(support, w), rate, 3)[-1]

    assert torch.autograd.gradcheck(last, tuple(x.requires_grad_() for x in (support, start, rate)))


def test_any_loss_will_do():
    """Catches an inner loop that knows LEO: torch.func.grad makes a gradient of any loss."""
    centre, start, rate = randn(2, 3), randn(2, 3, seed=1), torch.tensor([0.1, 0.25, 0.5], dtype=DOUBLE)

    def loss(x: Tensor) -> Tensor:
        return (x - centre).square().sum()

    found = adapt(start, lambda x, _: torch.func.grad(loss)(x), rate, 4)[-1]
    torch.testing.assert_close(found, centre + (1 - 2 * rate) ** 4 * (start - centre))


def test_steps_are_numbered():
    """Catches a mask or a draw that serves every step."""
    seen = []

    def gradient(x: Tensor, step: int) -> Tensor:
        seen.append(step)
        return torch.ones_like(x)

    adapt(randn(2, 3), gradient, torch.ones(3, dtype=DOUBLE), 4)
    assert seen == [0, 1, 2, 3]


def test_no_steps_need_no_gradient():
    """Catches a gradient that is asked for when there is nothing to do."""
    start = randn(2, 3)
    assert adapt(start, lambda *_: pytest.fail("called"), torch.ones(3, dtype=DOUBLE), 0) == [start]


def test_start_is_left_alone():
    """Catches an update in place, which breaks the graph and the caller's tensor."""
    start = randn(2, 3)
    before = start.clone()
    adapt(start, lambda x, _: torch.ones_like(x), torch.ones(3, dtype=DOUBLE), 2)
    assert torch.equal(start, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_autograd(mode: Callable):
    """Catches autograd in the inner loop, which inference mode refuses."""
    support, start, rate = randn(2, 3, 2, 4), randn(2, 3, 4, seed=1), randn(4, seed=2).abs()
    expected = adapt(start, lambda w, _: support_gradient(support, w), rate, 2)[-1]
    with mode():
        assert torch.equal(adapt(start, lambda w, _: support_gradient(support, w), rate, 2)[-1], expected)
