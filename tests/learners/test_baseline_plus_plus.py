"""Baseline++ against autograd, one task at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.learners.baseline_plus_plus import BaselinePlusPlus
from tests.learners.tasks import episode_of


def fitted(classes: list[Tensor], scale: float, rate: float, steps: int) -> Tensor:
    """Class weights of one task, by torch's SGD; the loss is the mean over classes of their mean losses."""
    weight = torch.stack([F.normalize(F.normalize(x, dim=-1).mean(0), dim=0) for x in classes])
    weight.requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = []
        for n, images in enumerate(classes):
            logits = scale * F.cosine_similarity(images[:, None], weight[None], dim=-1)
            losses.append(F.cross_entropy(logits, torch.full((len(images),), n)))
        torch.stack(losses).mean().backward()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(("scale", "rate", "steps"), [(10.0, 0.1, 1), (10.0, 0.1, 30), (2.0, 1.0, 10)])
@pytest.mark.parametrize(("N", "K"), [(3, 2), (5, 1), (2, 4)])
def test_logits_are_those_of_autograd(N: int, K: int, scale: float, rate: float, steps: int):
    """Catches a gradient along the weight, a sum for the mean, a step too few, weights of another start."""
    episode = episode_of(N, K)
    support, query = 3 * episode.support, 0.5 * episode.query  # lengths that must not matter
    found = BaselinePlusPlus(scale, rate, steps).adapt(support)(query)
    for task, asked, logits in zip(support, query, found, strict=True):
        weight = fitted(list(task), scale, rate, steps)
        expected = scale * F.cosine_similarity(asked[:, :, None], weight, dim=-1)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_unequal_shots_are_those_of_the_images_alone():
    """Catches padding in a mean or a gradient, and a class that counts for more by its images."""
    episode, shots = episode_of(3, 4), [1, 4, 2]
    valid = torch.zeros(2, 3, 4, dtype=torch.bool)
    for n, count in enumerate(shots):
        valid[:, n, :count] = True
    found = BaselinePlusPlus(10.0, 0.3, 20).adapt(episode.support, valid)(episode.query)
    for task, asked, logits in zip(episode.support, episode.query, found, strict=True):
        weight = fitted([x[:count] for x, count in zip(task, shots, strict=True)], 10.0, 0.3, 20)
        expected = 10 * F.cosine_similarity(asked[:, :, None], weight, dim=-1)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_easyfsl_finds_the_same_answers():
    """Catches another method of this name: easyfsl's Finetune starts from the same means, with Adam's steps.

    Its means are of embeddings as they come; here these have length 1. After no more than a small step the
    answers are alike.
    """
    from easyfsl.methods import Finetune
    from torch import nn

    episode = episode_of(5, 3, Q=8, E=20, B=1)
    labels = torch.arange(5).repeat_interleave(3)
    theirs = Finetune(nn.Identity(), fine_tuning_steps=5, fine_tuning_lr=1e-4, temperature=10.0)
    theirs.process_support_set(episode.support[0].flatten(0, 1), labels)
    expected = theirs(episode.query[0].flatten(0, 1)).argmax(-1)
    found = BaselinePlusPlus(10.0, 1e-4, 5)(episode).logits[0].flatten(0, 1).argmax(-1)
    assert (found == expected).double().mean() > 0.95


@pytest.mark.parametrize(
    "bad", [{"scale": 0.0}, {"inner_lr": math.nan}, {"steps": 0}, {"inner_lr": -1.0}], ids=str
)
def test_bad_settings_are_refused(bad: dict):
    """Catches a setting that fits nothing, or the wrong way."""
    with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
        BaselinePlusPlus(**bad)
