"""Both inner loops of `GeneralLEO` and their adjoint against autograd through the same formulas."""

from typing import Any

import pytest
import torch
from torch import Tensor

from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.linear_softmax import LinearSoftmax
from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.learners.parts.generated_steps import InnerLoop, Iterates, adapted, last_theta
from leo_lightning.learners.parts.inner_loop import shortened
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.perceptron import Perceptron
from tests.learners.tasks import moved

DOUBLE = torch.float64


def problem(
    base: BaseLearner | None = None, hidden: tuple[int, ...] = (6, 5), T: int = 3, F: int = 2,
    longest: float | None = None, noise: bool = True, tasks: int = 3,
) -> InnerLoop:  # fmt: skip
    """Inner loops of 3 tasks; of regression with one code each, or of classification with two."""
    base = base or MLPRegressor(1, (4, 3))
    N, E, H = (2, 5, 4) if base.predicts == "classes" else (1, 2, 4)
    D = len(base.initial(E))
    torch.manual_seed(0)
    decoder = moved(Perceptron([H, *hidden, 2 * D]), by=0.3)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=DOUBLE)

    z, alpha, eta = randn(3, N, H), 0.01 * randn(H).abs(), 0.01 * randn(D).abs()
    z, alpha, eta = (leaf.requires_grad_() for leaf in (z, alpha, eta))
    scales = 0.3 * randn(T + 1, tasks, N, D) if noise else None
    return InnerLoop(z, alpha, eta, decoder, base, randn(3, N, 4, E), scales, T, F, longest)


def by_autograd(loop: InnerLoop) -> Iterates:
    """∇z and ∇θ by `torch.autograd.grad`."""
    base, support, scales, T, F, longest = loop[4:]

    def gradient(theta: Tensor) -> Tensor:
        answer = base.predictor(theta)(support)
        if base.predicts == "classes":
            loss = query_cross_entropy(answer, None).sum() * support.shape[1] * support.shape[2]
        else:
            loss = (answer - support[..., -1:]).square().sum()
        return shortened(torch.autograd.grad(loss, theta, create_graph=True)[0], longest)

    def decode(z: Tensor, step: int) -> Tensor:
        mean, raw = loop.decoder(z).chunk(2, dim=-1)
        return mean if scales is None else mean + scales[step] * raw.exp()

    latents, decoded = [loop.z], []
    for step in range(T):
        decoded.append(decode(latents[-1], step))
        by_z = torch.autograd.grad(
            decoded[-1], latents[-1], gradient(decoded[-1]), create_graph=True
        )[0]  # fmt: skip
        latents.append(latents[-1] - loop.alpha * by_z)
    decoded.append(decode(latents[-1], T))
    weights = [decoded[-1]]
    for _ in range(F):
        weights.append(weights[-1] - loop.eta * gradient(weights[-1]))
    return Iterates(latents, decoded, weights)


CASES: list[dict[str, Any]] = [
    {},
    {"longest": 1.0},
    {"longest": 1e-2},
    {"noise": False},
    {"noise": False, "longest": 1.0},
    {"T": 0},
    {"F": 0},
    {"T": 0, "F": 0},
    {"hidden": ()},
    {"hidden": (6,), "T": 1, "F": 1},
    {"tasks": 1},
    {"base": MLPRegressor(1, ())},
    {"base": LinearSoftmax(), "longest": 1.0},
    {"base": LinearSoftmax(), "hidden": ()},
]


@pytest.mark.parametrize("case", CASES)
def test_steps_and_gradients_are_autograds(case: dict[str, Any]):
    """Catches any wrong line of the adjoint, above all a path to the weights that is left out."""
    loop = problem(**case)
    found, wanted = adapted(loop), by_autograd(loop)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.stack(mine), torch.stack(theirs), rtol=1e-11, atol=1e-12)
    leaves = [loop.z, loop.alpha, loop.eta, *loop.decoder.parameters()]
    direction = torch.randn(found.weights[-1].shape, dtype=DOUBLE)
    mine, theirs = (
        torch.autograd.grad(
            (steps.weights[-1] * direction).sum(), leaves, materialize_grads=True, allow_unused=True
        )
        for steps in (found, wanted)
    )
    for gradient, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_the_last_theta_alone_is_the_same(case: dict[str, Any]):
    """Catches a buffer that is overwritten before it was read where nothing is kept."""
    loop = problem(**case)
    found = last_theta(loop)
    assert not found.requires_grad
    assert torch.equal(found, adapted(loop).weights[-1])


def test_gradients_are_shortened_in_some_cases_and_not_in_all():
    """Catches test problems whose gradients are all long, or all short."""
    loop = problem(longest=1.0)
    thetas = adapted(loop).decoded
    lengths = [loop.base.support_gradient(theta, loop.support).norm(dim=-1) for theta in thetas]
    assert 0 < (torch.stack(lengths) > 1).double().mean() < 1


def test_the_graph_can_be_used_twice():
    """Catches a backward pass that changes what the forward pass has kept."""
    loop = problem(longest=1.0)
    leaves = [loop.z, loop.alpha, loop.eta, *loop.decoder.parameters()]
    final = adapted(loop).weights[-1]
    first, again = (torch.autograd.grad(final.square().sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, again))


def test_gradient_by_finite_differences():
    """Catches a wrong adjoint without autograd's help, and one that fails for a loss without θ."""
    loop = problem(longest=1.0)
    leaves = [loop.z, loop.alpha, loop.eta]

    def last(z: Tensor, alpha: Tensor, eta: Tensor) -> Tensor:
        return adapted(loop._replace(z=z, alpha=alpha, eta=eta)).weights[-1]

    assert torch.autograd.gradcheck(last, leaves)
