"""Transductive fine-tuning of the classifier against torch's autograd and Adam."""

import pytest
import torch
from torch import nn

from leo_lightning.learners.transductive_finetuning import TransductiveFinetuning
from tests.learners.tasks import episode_of


@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 5), (5, 1, 15), (4, 5, 6)])
def test_it_is_autograds(N: int, K: int, Q: int):
    """Catches an entropy of the other sign, a bias that does not learn, and gradients without τ."""
    episode = episode_of(N, K, Q, E=8, B=3, spread=1.0)
    found = TransductiveFinetuning(steps=30, rate=0.02, temperature=5.0, entropy_weight=0.7)(episode).logits
    labels = torch.arange(N).repeat_interleave(K)
    for support, query, logits in zip(episode.support, episode.query, found, strict=True):
        layer = nn.Linear(8, N).double()
        with torch.no_grad():
            layer.weight.copy_(nn.functional.normalize(support.mean(1), dim=-1))
            layer.bias.zero_()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
        for _ in range(30):
            loss = nn.functional.cross_entropy(5 * layer(support.flatten(0, 1)), labels)
            probability = (5 * layer(query.flatten(0, 1))).softmax(-1)
            loss = loss - 0.7 * (probability * probability.log()).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(logits, 5 * layer(query).detach(), rtol=0, atol=1e-9)


def test_queries_become_certain():
    """Catches fine-tuning on the support alone."""
    episode = episode_of(N=4, K=1, Q=10, B=5, spread=1.0)
    entropy = [
        torch.special.entr(
            TransductiveFinetuning(entropy_weight=weight, rate=0.01)(episode).logits.softmax(-1)
        ).sum(-1).mean()
        for weight in (0.0, 1.0)
    ]  # fmt: skip
    assert entropy[1] < 0.7 * entropy[0]
