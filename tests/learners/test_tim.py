"""TIM against the paper's loss with torch's autograd and Adam, and against the authors' updates in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.learners.tim import TIM
from tests.learners.tasks import episode_of

SHAPES = pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 5), (5, 1, 15), (4, 5, 6)])
WEIGHTS = {"support_weight": 0.3, "marginal_weight": 0.8, "conditional_weight": 0.2, "temperature": 10.0}


def predicted(weights: Tensor, images: Tensor) -> Tensor:
    """Probabilities of one task's images."""
    distance = (images[:, None] - weights).square().sum(-1)
    return (-WEIGHTS["temperature"] / 2 * distance).softmax(-1)


@SHAPES
def test_gradient_descent_is_autograds(N: int, K: int, Q: int):
    """Catches a term of the gradient that is missing or has the other sign, and another Adam."""
    episode = episode_of(N, K, Q, E=8, B=3, spread=1.0)
    found = TIM("gd", steps=30, rate=0.02, **WEIGHTS)(episode).logits.softmax(-1)
    for support, query, probability in zip(episode.support, episode.query, found, strict=True):
        weights = support.mean(1).requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=0.02)
        for _ in range(30):
            known = predicted(weights, support.flatten(0, 1)).unflatten(0, (N, K))
            cross_entropy = -torch.stack([known[n, :, n].log().mean() for n in range(N)]).mean()
            asked = predicted(weights, query.flatten(0, 1))
            conditional = -(asked * asked.log()).sum(-1).mean()
            marginal = -(asked.mean(0) * asked.mean(0).log()).sum()
            loss = 0.3 * cross_entropy - (0.8 * marginal - 0.2 * conditional)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        expected = predicted(weights.detach(), query.flatten(0, 1)).unflatten(0, (N, Q))
        torch.testing.assert_close(probability, expected, rtol=0, atol=1e-9)


def alternated(support: np.ndarray, query: np.ndarray, steps: int) -> np.ndarray:
    """Probabilities (M, N) after TIM-ADM of one task, as in the authors' code, image by image."""
    tau, lam, mu, alpha = (WEIGHTS[name] for name in (
        "temperature", "support_weight", "marginal_weight", "conditional_weight"
    ))  # fmt: skip
    (N, K), M = support.shape[:2], len(query)
    w = support.mean(1)

    def chances(images: np.ndarray) -> np.ndarray:
        powers = np.exp([[-tau / 2 * np.sum((x - each) ** 2) for each in w] for x in images])
        return powers / powers.sum(1, keepdims=True)

    for _ in range(steps):
        flat, labels = support.reshape(N * K, -1), np.repeat(np.arange(N), K)
        p_s, p_q = chances(flat), chances(query)
        q = p_q ** (1 + alpha) / (p_q ** (1 + alpha)).sum(0) ** (mu / (mu + 1))
        q /= q.sum(1, keepdims=True)
        new: list[Any] = []
        for n in range(N):
            of_support = sum(
                (float(label == n) - p_s[i, n]) * flat[i] + p_s[i, n] * w[n] for i, label in enumerate(labels)
            )
            of_query = sum((q[i, n] - p_q[i, n]) * query[i] + p_q[i, n] * w[n] for i in range(M))
            top = lam / (1 + alpha) * of_support + N * K / M * of_query
            new.append(top / (lam / (1 + alpha) * K + N * K / M * q[:, n].sum()))
        w = np.array(new)
    return chances(query)


@SHAPES
def test_alternating_directions_are_the_authors(N: int, K: int, Q: int):
    """Catches q of another power, a prototype's own term that is missing, and weights of another total."""
    episode = episode_of(N, K, Q, E=8, B=2, spread=1.0)
    found = TIM("adm", steps=7, **WEIGHTS)(episode).logits.softmax(-1).flatten(1, 2)
    for support, query, probability in zip(episode.support, episode.query, found, strict=True):
        expected = alternated(support.numpy(), query.flatten(0, 1).numpy(), 7)
        np.testing.assert_allclose(probability.numpy(), expected, rtol=0, atol=1e-12)


def test_the_marginal_term_balances_the_classes():
    """Catches a term that drives all queries to one class."""
    episode = episode_of(N=3, K=1, Q=10, B=20, spread=1.5)
    imbalance = []
    for weight in (0.0, 10.0):
        chosen = TIM(marginal_weight=weight, steps=50)(episode).logits.flatten(1, 2).argmax(-1)
        counts = torch.nn.functional.one_hot(chosen, 3).sum(1).double()
        imbalance.append(counts.std(1).mean())
    assert imbalance[1] < 0.7 * imbalance[0]


def test_settings_that_mean_nothing():
    """Catches predictions that are all alike."""
    with pytest.raises(InputError, match="temperature is 0"):
        TIM(temperature=0.0)
