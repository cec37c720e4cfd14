"""Fine-tuning with dropout and its adjoint against autograd through the same steps, one by one."""

import pytest
import torch
from torch import Tensor

from leo_lightning.learners.parts.finetuning_steps import finetuned
from leo_lightning.learners.parts.inner_loop import SupportLoss, adapt
from leo_lightning.learners.parts.unequal_shots import ShotWeights

DOUBLE = torch.float64
LATENT_STEPS = 2


def problem(B: int = 2, N: int = 3, K: int = 2, E: int = 5, F: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=DOUBLE)

    masks = (torch.rand(LATENT_STEPS + F, B, N, K, E, generator=generator) > 0.3).to(DOUBLE) / 0.7
    leaves = {
        "weight": randn(B, N, E),
        "rate": 0.1 * randn(E).abs(),
        "support": randn(B, N, K, E),
        "bias": randn(B, N, 1),
    }
    return {name: x.requires_grad_() for name, x in leaves.items()} | {"masks": masks}


def by_hand(
    weight: Tensor, rate: Tensor, support: Tensor, bias: Tensor, masks: Tensor, weights: Tensor | None = None
) -> list[Tensor]:
    shot_weights = ShotWeights(support.shape[2], image_weights=weights)
    loss = SupportLoss(support, masks, None, bias, shot_weights)
    return finetuned(weight, rate, len(masks) - LATENT_STEPS, loss)


def by_autograd(
    weight: Tensor, rate: Tensor, support: Tensor, bias: Tensor, masks: Tensor, weights: Tensor | None = None
) -> list[Tensor]:
    N, K = support.shape[1:3]

    def gradient(weight: Tensor, step: int) -> Tensor:
        images = (support * masks[LATENT_STEPS + step]).flatten(1, 2)
        log_chance = (images @ weight.mT + bias.mT).log_softmax(-1)
        loss = -log_chance.gather(2, torch.arange(N).repeat_interleave(K).expand(len(images), -1)[..., None])
        loss = loss if weights is None else loss * weights.mT
        return torch.autograd.grad(loss.sum(), weight, create_graph=True)[0]

    return adapt(weight, gradient, rate, len(masks) - LATENT_STEPS)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"K": 1}, {"F": 1}, {"B": 1, "N": 2, "K": 3, "E": 2}], ids=str)
def test_values_and_gradients_are_autograds(sizes: dict, weighted: bool):
    """Catches a sign, the mask of another step, a rate's sum over the wrong axes, and a forgotten path."""
    given = problem(**sizes)
    B, N, K, _ = given["support"].shape
    weights = torch.rand(B, 1, N * K, dtype=DOUBLE) if weighted else None
    found, expected = by_hand(**given, weights=weights), by_autograd(**given, weights=weights)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)
    leaves = [x for x in given.values() if x.requires_grad]
    direction = torch.randn(given["weight"].shape, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)
    slopes = [torch.autograd.grad(iterates[-1], leaves, direction) for iterates in (found, expected)]
    for mine, other in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_gradient_by_finite_differences():
    """Catches an error that autograd and the adjoint share."""
    given = problem(B=1, N=2, K=2, E=3, F=2)
    names = [name for name, x in given.items() if x.requires_grad]

    def last(*leaves: Tensor) -> Tensor:
        return by_hand(**(given | dict(zip(names, leaves, strict=True))))[-1]

    assert torch.autograd.gradcheck(last, [given[name] for name in names])


def test_the_graph_can_be_used_twice():
    """Catches a backward pass that overwrites what it needs."""
    given = problem()
    last = by_hand(**given)[-1]
    first, second = (torch.autograd.grad(last.sum(), given["rate"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
