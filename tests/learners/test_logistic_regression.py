"""Logistic regression against the optimality of its own objective."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Reference

from leo_lightning.common.errors import InputError
from leo_lightning.learners.logistic_regression import LogisticRegression
from tests.learners.tasks import episode_of


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
@pytest.mark.parametrize(("N", "K", "E"), [(5, 1, 30), (5, 5, 30), (3, 4, 6), (2, 1, 30), (2, 5, 6)])
def test_the_objective_is_at_its_minimum(N: int, K: int, E: int, C: float):
    """Catches a fit that stopped early, a penalty on the bias, another C, a wrong way back to E dimensions.

    The objective is convex: where its gradient is zero is its only minimum.
    """
    support = episode_of(N, K, E=E, B=3).support
    weight, bias = (part.requires_grad_() for part in LogisticRegression(C).adapt(support))
    labels = torch.arange(N).repeat_interleave(K)
    logits = torch.einsum("bne,bme->bmn", weight, support.flatten(1, 2)) + bias[:, None]
    loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(3), reduction="sum")
    # binary: half the penalty on the difference of the rows, which are opposite
    penalty = weight.square().sum() if N > 2 else (weight[:, 1] - weight[:, 0]).square().sum() / 2
    by_weight, by_bias = torch.autograd.grad(C * loss + penalty / (2 if N > 2 else 1), (weight, bias))
    if N == 2:  # along what is free: a change of the second row is the opposite one of the first
        by_weight, by_bias = by_weight[:, 1] - by_weight[:, 0], by_bias[:, 1] - by_bias[:, 0]
        torch.testing.assert_close(weight[:, 0], -weight[:, 1])
    assert weight.abs().max() > 0.01
    assert by_weight.abs().max() < 1e-4 * max(1, C)
    assert by_bias.abs().max() < 1e-4 * max(1, C)


@pytest.mark.parametrize("N", [2, 4])
def test_probabilities_are_scikit_learns(N: int):
    """Catches rows of two classes that are twice, or half, what was fitted."""
    episode = episode_of(N, K=5, E=8)
    found = LogisticRegression(3.0)(episode).logits.softmax(-1).flatten(1, 2)
    labels = torch.arange(N).repeat_interleave(5).numpy()
    for support, query, probabilities in zip(episode.support, episode.query, found, strict=True):
        reference = Reference(C=3.0, tol=1e-8).fit(support.flatten(0, 1).numpy(), labels)
        expected = torch.from_numpy(reference.predict_proba(query.flatten(0, 1).numpy()))
        torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-5)


def test_fits_converge_or_say_so(monkeypatch: pytest.MonkeyPatch):
    """Catches warnings in ordinary use, which here would be errors, and real ones that are swallowed."""
    support = episode_of(5, 5, E=30, spread=3.0).support
    LogisticRegression(1e4).adapt(support)
    monkeypatch.setattr(LogisticRegression, "estimator", lambda self: Reference(C=1e4, max_iter=1))
    with pytest.warns(ConvergenceWarning):
        LogisticRegression().adapt(support)


@pytest.mark.parametrize("C", [0.0, -1.0, math.nan, math.inf])
def test_bad_weights_are_refused(C: float):
    """Catches a setting that fails at the first task only."""
    with pytest.raises(InputError, match="C is"):
        LogisticRegression(C)
