"""The nearest-centroid learner against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid as Reference

from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.learners.centroid import NearestCentroid


def episode_of(N: int, K: int, Q: int, E: int, B: int = 4) -> Episode:
    """Overlapping classes: many queries are nearest to a class that is not theirs."""
    generator = torch.Generator().manual_seed(N)
    centres = torch.randn(B, N, 1, E, generator=generator, dtype=torch.float64)
    support = centres + torch.randn(B, N, K, E, generator=generator, dtype=torch.float64)
    query = centres + torch.randn(B, N, Q, E, generator=generator, dtype=torch.float64)
    return Episode(support, query)


@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 5), (5, 1, 15), (5, 5, 15), (3, 4, 2)])
def test_answers_are_scikit_learns(N: int, K: int, Q: int):
    """Catches cosine or dot product for the distance, and centroids over the wrong axis."""
    episode = episode_of(N, K, Q, E=6)
    answers = NearestCentroid()(episode).logits.argmax(-1).flatten(1)
    expected = []
    for support, query in zip(episode.support, episode.query, strict=True):
        with np.errstate(invalid="ignore"):  # its std within classes, of one image each
            reference = Reference().fit(support.flatten(0, 1).numpy(), np.repeat(np.arange(N), K))
        expected.append(reference.predict(query.flatten(0, 1).numpy()))
    np.testing.assert_array_equal(answers.numpy(), np.stack(expected))
    assert (answers != torch.arange(N).repeat_interleave(Q)).any()


def test_logits_are_squared_distances():
    """Catches distances without their square: probabilities are softmax of -‖x - c‖²."""
    episode = episode_of(N=4, K=2, Q=3, E=5)
    centroids = episode.support.mean(2)
    distances = (episode.query[:, :, :, None] - centroids[:, None, None]).square().sum(-1)
    outcome = NearestCentroid()(episode)
    torch.testing.assert_close(outcome.logits.softmax(-1), (-distances).softmax(-1))
    labels = torch.arange(4)[:, None, None].expand(4, 4, 3, 1)
    expected = -(-distances).log_softmax(-1).gather(-1, labels).mean()
    torch.testing.assert_close(outcome.loss, expected)
    assert outcome.terms == {"cross_entropy": outcome.loss}


def test_adapt_answers_new_images():
    """Catches a classifier for later use that is not the one of forward."""
    episode = episode_of(N=3, K=2, Q=4, E=5)
    learner = NearestCentroid().eval()
    logits = learner.adapt(episode.support)(episode.query.flatten(1, 2)).unflatten(1, (3, 4))
    torch.testing.assert_close(logits, learner(episode).logits)


def test_padding_is_not_scored():
    """Catches a loss over padded queries."""
    episode = episode_of(N=2, K=1, Q=3, E=4, B=1)
    valid = torch.tensor([[[True, True, False], [True, True, False]]])
    index = torch.zeros(1, 2, 3, dtype=torch.int64)
    rows = EpisodeRows(torch.zeros(1, dtype=torch.int64), index[..., :1], index, valid)
    shorter = Episode(episode.support, episode.query[:, :, :2])
    torch.testing.assert_close(
        NearestCentroid()(episode._replace(rows=rows)).loss, NearestCentroid()(shorter).loss
    )


def test_there_is_nothing_to_train():
    """Catches a parameter, or a setting, that sneaks in."""
    learner = NearestCentroid()
    assert list(learner.parameters()) == []
    assert learner.init_args() == {}
