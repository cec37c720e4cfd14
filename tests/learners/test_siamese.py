"""Siamese networks against a transcription of the paper."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import EpisodeRows
from leo_lightning.learners.siamese import SiameseNetworks
from tests.learners.tasks import episode_of, moved
from tests.oracles import metric_numpy as oracle


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize(("size", "hidden"), [(None, 0), (4, 5)])
@pytest.mark.parametrize("K", [1, 3])
def test_log_odds_and_loss_are_the_papers(K: int, size: int | None, hidden: int, pooling: str):
    """Catches a distance between means, a lost sign of a weight, classes for pairs, unequal halves."""
    learner = moved(SiameseNetworks(6, size, hidden, temperature=0.5, pooling=pooling)).eval()
    with torch.no_grad():
        learner.similarity.weight[0] = -0.8
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=3, K=K, Q=2)
    outcome, losses = learner(episode), []
    found = outcome.logits.detach().numpy()
    for b, n, q in np.ndindex(found.shape[:3]):
        support, query = episode.support[b].numpy(), episode.query[b, n, q].numpy()
        expected = oracle.siamese(weights, support, query, pooling)
        np.testing.assert_allclose(found[b, n, q], expected, rtol=1e-10, atol=1e-10)
        losses.append(oracle.siamese_loss(oracle.siamese_pairs(weights, support, query), n))
    assert list(outcome.terms) == ["pair_cross_entropy"]
    np.testing.assert_allclose(outcome.loss.item(), np.mean(losses), rtol=1e-11)


def test_padding_is_not_in_the_loss():
    """Catches padding that takes part in a task's mean, or tasks weighted by their number of queries."""
    learner, episode = moved(SiameseNetworks(6)).eval(), episode_of(Q=4)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[0, :, 1:] = False
    index = torch.zeros(2, 3, 4, dtype=torch.int64)
    rows = EpisodeRows(torch.zeros(2, dtype=torch.int64), index[..., :2], index, valid)
    first = episode._replace(support=episode.support[:1], query=episode.query[:1, :, :1])
    second = episode._replace(support=episode.support[1:], query=episode.query[1:])
    expected = (learner(first).loss + learner(second).loss) / 2
    torch.testing.assert_close(learner(episode._replace(rows=rows)).loss, expected)


def test_unrelated_images_begin_undecided():
    """Catches a start at which every pair is of two classes for sure, and nothing is learned."""
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(1, 200, 400, generator=generator), dim=-1)
    learner = SiameseNetworks(400, temperature=0.05)
    log_odds = learner.similarity(images[:, :100], images[:, 100:])
    assert log_odds.mean().abs() < 0.1
    assert learner.similarity(images, images).diagonal(dim1=1, dim2=2).min() > 20
    assert learner.diagnostics()["temperature"].item() == pytest.approx(0.05)


def test_max_is_the_nearest_image_by_cityblock_distance():
    """Catches the farthest image, and a Euclidean distance."""
    episode = episode_of(K=3, Q=20, spread=1.5)
    found = SiameseNetworks(6, pooling="max").double()(episode).logits.argmax(-1)
    for b in range(2):
        query, support = episode.query[b].flatten(0, 1), episode.support[b].flatten(0, 1)
        nearest = (query[:, None] - support).abs().sum(-1).argmin(-1)
        assert torch.equal(nearest // 3, found[b].flatten())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: it must be a number above 0"),
        ({"pooling": "min"}, "pooling is 'min': it must be mean or max"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all; also where nobody checks the types."""
    build = partial(inspect.unwrap(SiameseNetworks.__init__), SiameseNetworks.__new__(SiameseNetworks))
    with pytest.raises(InputError, match=message):
        build(6, **settings)
