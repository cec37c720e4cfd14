"""R2-D2 against scikit-learn's ridge regression."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge

from leo_lightning.common.errors import InputError
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.r2d2 import R2D2
from tests.learners.tasks import episode_of, moved


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize(("N", "K", "size"), [(3, 2, None), (5, 1, 4), (2, 6, None), (4, 3, 20)])
def test_logits_are_scikit_learns(N: int, K: int, size: int | None, hidden: int):
    """Catches labels of another class, λ in another place, an intercept, 1/α for α, a lost branch."""
    learner = moved(R2D2(6, size, hidden, ridge=0.4, scale=3.0)).eval()
    episode = episode_of(N, K)
    found = learner(episode).logits.detach()
    embedded, query = (learner.embedding(part).detach() for part in (episode.support, episode.query))
    labels = torch.eye(N).repeat_interleave(K, dim=0).numpy()
    ridge, scale = learner.log_ridge.exp().item(), learner.log_scale.exp().item()
    for b in range(2):
        fitted = Ridge(alpha=ridge, fit_intercept=False).fit(embedded[b].flatten(0, 1).numpy(), labels)
        expected = scale * torch.from_numpy(fitted.predict(query[b].flatten(0, 1).numpy()))
        torch.testing.assert_close(found[b].flatten(0, 1), expected, rtol=1e-10, atol=1e-10)


def test_unequal_shots_are_scikit_learns_weights():
    """Catches padding that a hidden layer makes an image, and a class that counts for more by its images."""
    learner = moved(R2D2(6, hidden=5, ridge=0.4, scale=3.0)).eval()
    support, query = episode_of(3, 4)[:2]
    shots, rows = [1, 4, 2], []
    valid = torch.zeros(2, 3, 4, dtype=torch.bool)
    for n, count in enumerate(shots):
        valid[:, n, :count] = True
        rows += [n] * count
    found = learner.adapt(support, valid)(query).detach()
    labels = torch.eye(3)[rows].numpy()
    weights = [sum(shots) / (3 * shots[n]) for n in rows]
    ridge, scale = learner.log_ridge.exp().item(), learner.log_scale.exp().item()
    for b in range(2):
        images, asked = (learner.embedding(part).detach() for part in (support[b][valid[b]], query[b]))
        fitted = Ridge(alpha=ridge, fit_intercept=False).fit(images.numpy(), labels, weights)
        expected = scale * torch.from_numpy(fitted.predict(asked.flatten(0, 1).numpy()))
        torch.testing.assert_close(found[b].flatten(0, 1), expected, rtol=1e-10, atol=1e-10)


def test_a_linear_embedding_gives_a_linear_classifier():
    """Catches a classifier that cannot be exported as one matrix."""
    support = episode_of().support
    assert isinstance(R2D2(6).double().adapt(support), LinearClassifier)
    assert not isinstance(R2D2(6, hidden=2).double().adapt(support), LinearClassifier)


def test_twins_in_the_support_are_solved():
    """Catches a system that is singular without λ: NaN, or digits lost, in float32."""
    episode = episode_of(5, 1)
    twins = episode.support.expand(-1, -1, 20, -1)
    learner = R2D2(6, ridge=1e-2)
    exact = learner.double().adapt(twins)(episode.query)
    found = learner.float().adapt(twins.float())(episode.query.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["ridge", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_settings_are_refused(name: str, value: float):
    """Catches the logarithm of what has none."""
    with pytest.raises(InputError, match=f"{name} is"):
        R2D2(6, **{name: value})
