"""The latent steps and their adjoint against autograd through the same formulas, step by step."""

import pytest
import torch
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.inner_loop import SupportLoss, adapt
from leo_lightning.learners.parts.latent_steps import sampled_latent_steps
from leo_lightning.learners.parts.unequal_shots import ShotWeights

DOUBLE = torch.float64
OFFSET = 0.3
Problem = dict[str, Tensor | LinearClassifier | None]
Steps = tuple[list[Tensor], list[Tensor]]
"""Latents and classifiers."""


def problem(
    B: int = 2, N: int = 3, K: int = 2, E: int = 5, H: int = 4, T: int = 3, masked: bool = True,
    C: int | None = None, anchored: bool = False,
) -> Problem:  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=DOUBLE)

    C = C or K
    masks = (torch.rand(T + 2, B, N, K, E, generator=generator) > 0.3).to(DOUBLE) / 0.7
    return {
        "z": randn(B, N, C, H).requires_grad_(),
        "rate": (0.1 * randn(H).abs()).requires_grad_(),
        "mean_weight": (0.5 * randn(E, H)).requires_grad_(),
        "raw_std_weight": (0.5 * randn(E, H)).requires_grad_(),
        "support": randn(B, N, K, E).requires_grad_(),
        "masks": masks if masked else None,
        "eps": randn(T + 1, B, N, C, E),
        "head": LinearClassifier(randn(B, N, E).requires_grad_(), randn(B, N).requires_grad_())
        if anchored
        else None,
    }


def by_autograd(
    z: Tensor, rate: Tensor, mean_weight: Tensor, raw_std_weight: Tensor, support: Tensor,
    masks: Tensor | None, eps: Tensor, head: LinearClassifier | None,
) -> Steps:  # fmt: skip
    """All C classifiers kept, and ∇z by `torch.autograd.grad`."""
    C, T, decoded = z.shape[2], len(eps) - 1, []

    def decode(z: Tensor, step: int) -> Tensor:
        std = objectives.std_from_raw(z @ raw_std_weight.T, OFFSET)
        decoded.append((z @ mean_weight.T + eps[step] * std).mean(2) + (0.0 if head is None else head.weight))
        return decoded[-1]

    def gradient(z: Tensor, step: int) -> Tensor:
        images = support if masks is None else support * masks[step]
        logits = torch.einsum("bnke,bme->bnkm", images, decode(z, step))
        if head is not None:
            logits = logits + head.bias[:, None, None]
        loss = -sum(logits[:, n].log_softmax(-1)[..., n].sum() for n in range(support.shape[1]))
        # `rate` is α / C, which belongs to the gradient of all copies' mean
        return C * torch.autograd.grad(loss, z, create_graph=True)[0]

    latents = adapt(z, gradient, rate, T)
    decode(latents[-1], T)
    return latents, decoded


def by_hand(
    z: Tensor, rate: Tensor, mean_weight: Tensor, raw_std_weight: Tensor, support: Tensor,
    masks: Tensor | None, eps: Tensor, head: LinearClassifier | None,
) -> Steps:  # fmt: skip
    extra_logits = None if head is None else head.bias[:, :, None]
    loss = SupportLoss(support, masks, head, extra_logits, ShotWeights(z.shape[2]))
    return sampled_latent_steps(z, rate, mean_weight, raw_std_weight, eps, OFFSET, loss)


SIZES = [
    {},
    {"K": 1},
    {"T": 1},
    {"T": 0},
    {"B": 1, "N": 2, "K": 3, "E": 2, "H": 1},
    {"masked": False},
    {"C": 1},
    {"C": 1, "K": 3, "T": 2, "anchored": True},
    {"anchored": True, "masked": False},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_autograds(sizes: dict):
    """Catches a sign, a factor 1 / K, a step's mask or noise taken for another's, and a forgotten path."""
    given = problem(**sizes)
    expected, found = by_autograd(**given), by_hand(**given)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)
    weight, expected_weight = found[1][-1], expected[1][-1]
    leaves = [x for x in given.values() if isinstance(x, Tensor) and x.requires_grad]
    leaves += given["head"] or []
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)
    theirs = torch.autograd.grad(expected_weight, leaves, direction, allow_unused=True)
    for mine, other in zip(torch.autograd.grad(weight, leaves, direction), theirs, strict=True):
        torch.testing.assert_close(
            mine, torch.zeros_like(mine) if other is None else other, rtol=1e-9, atol=1e-11
        )
    if not sizes:
        std = objectives.std_from_raw(given["z"] @ given["raw_std_weight"].T, OFFSET)
        assert 0 < (std == objectives.MIN_STD).sum() < std.numel()


def test_gradient_by_finite_differences():
    """Catches an error that autograd and the adjoint share."""
    given = problem(B=1, N=2, K=2, E=3, H=2, T=2)
    names = [name for name, x in given.items() if isinstance(x, Tensor) and x.requires_grad]

    def weight(*leaves: Tensor) -> Tensor:
        return by_hand(**(given | dict(zip(names, leaves, strict=True))))[1][-1]

    assert torch.autograd.gradcheck(weight, [given[name] for name in names])


def test_the_graph_can_be_used_twice():
    """Catches a backward pass that overwrites what it needs."""
    given = problem()
    weight = by_hand(**given)[1][-1]
    first, second = (torch.autograd.grad(weight.sum(), given["z"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_what_has_no_gradient_says_so():
    """Catches a penalty on latents or decodes that is silently not differentiated."""
    latents, decoded = by_hand(**problem())
    assert latents[0].requires_grad
    assert decoded[-1].requires_grad
    assert not any(x.requires_grad for x in [*latents[1:], *decoded[:-1]])
