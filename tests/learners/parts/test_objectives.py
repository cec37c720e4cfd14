"""Every pure function of the objective against its definition."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal

from leo_lightning.learners.parts import objectives

DOUBLE = torch.float64


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


@pytest.mark.parametrize(("B", "N", "K", "E"), [(1, 2, 1, 3), (3, 5, 4, 6), (2, 3, 2, 1)])
def test_support_gradient_is_autograds(B: int, N: int, K: int, E: int):
    """Catches a mean over images or tasks, labels in the wrong order, and a transposed gradient."""
    support, weight = randn(B, N, K, E), randn(B, N, E, seed=1)

    def summed_cross_entropy(weight: Tensor) -> Tensor:
        loss = torch.zeros((), dtype=DOUBLE)
        for b in range(B):
            for n in range(N):
                for k in range(K):
                    logits = torch.stack([support[b, n, k] @ weight[b, m] for m in range(N)])
                    loss = loss - (logits[n] - logits.exp().sum().log())
        return loss

    expected = torch.func.grad(summed_cross_entropy)(weight)
    torch.testing.assert_close(objectives.support_gradient(support, weight), expected, rtol=0, atol=1e-12)


def test_support_gradient_survives_large_logits():
    """Catches a softmax that overflows."""
    support, weight = 100 * randn(1, 3, 2, 4), 100 * randn(1, 3, 4, seed=1)
    assert objectives.support_gradient(support, weight).isfinite().all()


def test_support_gradient_can_be_differentiated():
    """Finite differences. Catches a gradient that is cut from its graph."""
    support, weight = randn(2, 3, 2, 4).requires_grad_(), randn(2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(objectives.support_gradient, (support, weight))


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_std_from_raw_follows_its_definition(offset: float):
    """Catches the raw output taken for the std, a softplus, and an offset with the wrong sign."""
    raw = torch.tensor([-50.0, -1.0, -0.1, 0.0, 0.1, 2.0], dtype=DOUBLE)
    std = objectives.std_from_raw(raw, offset)
    expected = [max(np.exp(u) - (1 - offset), 1e-10) for u in raw.tolist()]
    torch.testing.assert_close(std, torch.tensor(expected, dtype=DOUBLE), rtol=1e-14, atol=0)
    assert std[3].item() == pytest.approx(max(offset, 1e-10), rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_std_has_the_right_slope(offset: float):
    """Finite differences. Catches a slope where the clamp holds, or none where it does not."""
    raw = torch.tensor([-3.0, -0.5, -0.4, -0.2, 0.2, 1.5], dtype=DOUBLE, requires_grad=True)
    slope = torch.autograd.grad(objectives.std_from_raw(raw, offset).sum(), raw)[0]
    up, down = (objectives.std_from_raw(raw + h, offset) for h in (1e-6, -1e-6))
    torch.testing.assert_close(slope, (up - down) / 2e-6, rtol=1e-8, atol=1e-10)
    assert (slope == 0).sum() == (raw < np.log(1 - offset)).sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_std_at_the_clamp(dtype: torch.dtype):
    """Catches a clamp that lets 0 or a negative std through to the logarithm."""
    std = objectives.std_from_raw(torch.tensor([-100.0, 0.0, -1e-12], dtype=dtype), 0.0)
    assert (std == torch.tensor(1e-10, dtype=dtype)).all()


def test_kl_is_the_difference_of_log_densities():
    """Catches a wrong sign, a forgotten log std, a sum for the mean, and a mean over tasks."""
    mean, std, eps = randn(3, 4, 2, 5), randn(3, 4, 2, 5, seed=1).exp(), randn(3, 4, 2, 5, seed=2)
    sample = mean + eps * std
    expected = (Normal(mean, std).log_prob(sample) - Normal(0.0, 1.0).log_prob(sample)).mean((1, 2, 3))
    found = objectives.kl_divergence(eps, std, sample)
    assert found.shape == (3,)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_kl_estimates_the_divergence():
    """Catches KL(p || q): the mean over many draws is the closed form."""
    mean, std = torch.tensor(0.7, dtype=DOUBLE), torch.tensor(0.4, dtype=DOUBLE)
    eps = randn(1, 200_000)
    found = objectives.kl_divergence(eps, std.expand_as(eps), mean + eps * std)
    exact = torch.distributions.kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    assert abs(found.item() - exact) < 5 * 0.85 / 200_000**0.5


def test_kl_keeps_its_digits_at_the_clamp():
    """Catches eps computed back as (z - mean) / std, which is noise where std is 1e-10 in float32."""
    inputs = randn(1, 40, seed=1), randn(1, 40, seed=3) - 0.5, randn(1, 40, seed=2)

    def value_and_slopes(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw, eps = (x.to(torch.float32).to(dtype) for x in inputs)
        mean, raw = mean.requires_grad_(), raw.requires_grad_()
        std = objectives.std_from_raw(raw, 0.0)
        z = mean + eps * std
        kl = objectives.kl_divergence(eps, std, z)
        if dtype == DOUBLE:
            # around 0 instead of the mean, so that the definition itself loses nothing
            expected = Normal(0.0, std).log_prob(eps * std) - Normal(0.0, 1.0).log_prob(z)
            torch.testing.assert_close(kl, expected.mean(1), rtol=1e-12, atol=0)
        slopes = torch.autograd.grad(kl.sum(), (mean, raw))
        return kl.detach(), *slopes

    exact = value_and_slopes(DOUBLE)
    assert 5 < (exact[2] == 0).sum() < 35
    for found, expected in zip(value_and_slopes(torch.float32), exact, strict=True):
        assert (found - expected).norm() < 3e-6 * expected.norm()


def test_encoder_penalty_is_a_mean_square_towards_the_adapted_code():
    """Catches a sum, a mean over tasks, and a stop-gradient on the wrong side."""
    initial, adapted = randn(3, 2, 4).requires_grad_(), randn(3, 2, 4, seed=1).requires_grad_()
    found = objectives.encoder_penalty(initial, adapted)
    expected = np.square(initial.detach().numpy() - adapted.detach().numpy()).reshape(3, 8).mean(1)
    torch.testing.assert_close(found.detach(), torch.from_numpy(expected))
    mine, other = torch.autograd.grad(found.sum(), (initial, adapted), allow_unused=True)
    torch.testing.assert_close(mine, 2 * (initial - adapted).detach() / 8)
    assert other is None


def test_regularisers_are_weighted():
    """Catches the norm, its mean, a forgotten half, and swapped weights. An iterator is read once."""
    weights, decoder = [randn(2, 3), randn(4, seed=1), randn(1, 1, 2, seed=2)], randn(6, 2)
    expected = 0.5 * sum(float(x) ** 2 for w in weights for x in w.flatten())
    terms = objectives.regularisers(0.3, iter(weights), 0.7, decoder)
    assert terms["l2_penalty"].item() == pytest.approx(0.3 * expected, rel=1e-14)
    orthogonality = objectives.orthogonality_penalty(decoder.T)
    assert terms["orthogonality_penalty"].item() == pytest.approx(0.7 * orthogonality.item(), rel=1e-14)


def cosines(rows: np.ndarray) -> np.ndarray:
    """Like np.corrcoef, but without taking the mean off the rows."""
    products = np.array([[np.dot(a, b) for b in rows] for a in rows])
    scale = np.sqrt(np.diag(products))
    return products / scale[:, None] / scale[None, :]


@pytest.mark.parametrize(("H", "D"), [(2, 6), (5, 4), (1, 3)])
def test_orthogonality_is_the_mean_squared_correlation(H: int, D: int):
    """Catches an L1 norm, a sum, a mean without the diagonal, and correlations that take the mean off."""
    rows = randn(H, D) + 0.5
    expected = np.square(cosines(rows.numpy()) - np.eye(H)).mean()
    assert objectives.orthogonality_penalty(rows).item() == pytest.approx(expected, rel=1e-12, abs=1e-30)
    if H > 1:
        centred = np.square(np.corrcoef(rows.numpy()) - np.eye(H)).mean()
        assert centred != pytest.approx(expected, rel=0.01)
        transposed = objectives.orthogonality_penalty(rows.T).item()
        assert transposed != pytest.approx(expected, rel=0.01)


def test_orthogonality_of_orthogonal_rows_is_zero():
    """Catches columns made orthogonal instead of rows, and a penalty that depends on lengths."""
    rows = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 0.1, 0.1, 0.0]], dtype=DOUBLE)
    assert objectives.orthogonality_penalty(rows) < 1e-30
    assert objectives.orthogonality_penalty(rows.T) > 0.01


def test_orthogonality_has_the_right_slope():
    """Finite differences. Catches a norm without gradient."""
    assert torch.autograd.gradcheck(objectives.orthogonality_penalty, (randn(3, 5).requires_grad_(),))


def test_query_cross_entropy_is_torchs():
    """Catches labels from the wrong axis, a sum over queries, and a mean over tasks."""
    B, N, Q = 3, 4, 5
    logits = randn(B, N, Q, N)
    labels = torch.arange(N)[:, None].expand(N, Q).flatten()
    expected = [F.cross_entropy(task.flatten(0, 1), labels) for task in logits]
    torch.testing.assert_close(objectives.query_cross_entropy(logits, None), torch.stack(expected))


def test_query_cross_entropy_leaves_padding_out():
    """Catches padding in the sum or in the count, and NaN of padding that comes through."""
    B, N, Q = 3, 4, 5
    logits = randn(B, N, Q, N)
    valid = torch.rand(B, N, Q, generator=torch.Generator().manual_seed(0)) < 0.6
    assert len(valid.flatten(1).sum(1).unique()) > 1
    labels = torch.arange(N)[:, None].expand(N, Q)
    expected = [F.cross_entropy(logits[b][valid[b]], labels[valid[b]]) for b in range(B)]
    padded = torch.where(valid[..., None], logits, torch.nan).requires_grad_()
    found = objectives.query_cross_entropy(padded, valid)
    torch.testing.assert_close(found.detach(), torch.stack(expected))
    everything = torch.ones_like(valid)
    torch.testing.assert_close(
        objectives.query_cross_entropy(logits, everything), objectives.query_cross_entropy(logits, None)
    )


def test_padding_gets_no_gradient():
    """Catches a padded query that pulls at the weights."""
    logits = randn(1, 2, 3, 2).requires_grad_()
    valid = torch.tensor([[[True, True, False], [True, False, False]]])
    gradient = torch.autograd.grad(objectives.query_cross_entropy(logits, valid).sum(), logits)[0]
    assert not gradient[~valid].any()
    assert gradient[valid].abs().min() > 0
