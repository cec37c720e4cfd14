"""PT-MAP: its transform against NumPy, its transport and its centres against easyfsl."""

import numpy as np
import pytest
import torch
from easyfsl.methods import PTMAP as Reference

from leo_lightning.learners.pt_map import PTMAP
from tests.learners.tasks import episode_of


def unit(x: np.ndarray) -> np.ndarray:
    """Rows at length 1."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def transformed(support: np.ndarray, query: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Power, length 1, centre, length 1."""
    parts = [np.where(part >= 0, 1, -1) * (np.abs(part) + 1e-6) ** power for part in (support, query)]
    support, query = (unit(part) for part in parts)
    return unit(support - support.mean((0, 1))), unit(query - query.mean((0, 1)))


@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 5), (5, 1, 15), (4, 5, 6)])
@pytest.mark.parametrize("positive", [False, True])
def test_plans_are_easyfsls(N: int, K: int, Q: int, positive: bool):
    """Catches a support that is left out of the centres, another number per class, and another transform."""
    episode = episode_of(N, K, Q, E=8, B=3, spread=1.0)
    if positive:
        episode = episode._replace(support=episode.support.relu(), query=episode.query.relu())
    found = PTMAP(power=0.5, steps=7)(episode).logits.flatten(1, 2).exp()
    for images, asked, plan in zip(episode.support, episode.query, found, strict=True):
        support, query = map(torch.from_numpy, transformed(images.numpy(), asked.numpy(), 0.5))
        reference = Reference(torch.nn.Identity(), fine_tuning_steps=7, power_factor=1.0)
        # it would cut off negative numbers; moving all images alike changes no distance
        reference.process_support_set(support.flatten(0, 1) + 2, torch.arange(N).repeat_interleave(K))
        torch.testing.assert_close(plan, reference(query.flatten(0, 1) + 2), rtol=0, atol=1e-5)


def test_classes_get_equally_many_queries():
    """Catches a plan whose columns are free."""
    episode = episode_of(N=4, K=1, Q=10, B=8, spread=1.5)
    plan = PTMAP()(episode).logits.flatten(1, 2).exp()
    torch.testing.assert_close(plan.sum(1), torch.full((8, 4), 10.0, dtype=plan.dtype))
    torch.testing.assert_close(plan.sum(2), torch.ones(8, 40, dtype=plan.dtype), rtol=0, atol=1e-3)


def test_certain_queries_are_not_lost():
    """Catches a plan that underflows to zeros, whose answer is class 0, in float32."""
    episode = episode_of(N=3, K=1, Q=4, spread=0.1)
    narrow = episode.in_precision(torch.float32)
    found = PTMAP(regularization=200.0)(narrow).logits
    assert (found.argmax(-1) == torch.arange(3)[:, None]).all()
