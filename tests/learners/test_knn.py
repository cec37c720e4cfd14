"""Nearest neighbours against scikit-learn, and against a count by hand where votes tie."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from leo_lightning.common.errors import InputError
from leo_lightning.learners.knn import NearestNeighbors
from tests.learners.tasks import episode_of


@pytest.mark.parametrize(("N", "K", "k"), [(2, 1, 1), (5, 1, 1), (5, 5, 1), (3, 4, 5), (4, 6, 9)])
def test_votes_are_scikit_learns(N: int, K: int, k: int):
    """Catches another distance, images of another class, and a number of voters that is not k."""
    episode = episode_of(N, K, Q=10, spread=1.0)
    logits = NearestNeighbors(k)(episode).logits.flatten(1, 2).numpy()
    for support, query, found in zip(episode.support, episode.query, logits, strict=True):
        reference = KNeighborsClassifier(k, metric="cosine").fit(
            support.flatten(0, 1).numpy(), np.arange(N).repeat(K)
        )
        votes = k * reference.predict_proba(query.flatten(0, 1).numpy())
        np.testing.assert_array_equal(np.floor(found + 1e-9), np.round(votes))


@pytest.mark.parametrize(("k", "voters"), [(1, 1), (4, 4), (6, 6), (100, 6)])
def test_ties_go_to_the_more_similar(k: int, voters: int):
    """Catches a tie that the class's place decides, and a k above N·K that fails."""
    episode = episode_of(N=3, K=2, Q=20, spread=2.0)
    logits = NearestNeighbors(k)(episode).logits
    ties = 0
    for b, n, q in np.ndindex(2, 3, 20):
        cosines = (episode.support[b] @ episode.query[b, n, q]).numpy()
        threshold = np.sort(cosines.ravel())[-voters]
        near = cosines >= threshold
        votes, sums = near.sum(1), np.where(near, 1 + cosines, 0).sum(1)
        best = max(range(3), key=lambda c: (votes[c], sums[c]))
        ties += (votes == votes.max()).sum() > 1
        assert logits[b, n, q].argmax() == best
        assert logits[b, n, q].max() < votes.max() + 1
    assert ties > 0 or k == 1
    if k > voters:  # a class's part of the tie must not vanish beside its votes
        assert torch.equal(logits, NearestNeighbors(voters)(episode).logits)


def test_length_does_not_matter():
    """Catches a dot product for the cosine."""
    episode = episode_of()
    longer = episode._replace(
        support=episode.support * torch.rand(2, 3, 2, 1).double(), query=episode.query * 7
    )
    learner = NearestNeighbors(3)
    torch.testing.assert_close(learner(longer).logits, learner(episode).logits)


def test_bad_numbers_of_neighbours_are_refused():
    """Catches k = 0, by which no class has a vote."""
    with pytest.raises(InputError, match="k is 0: it must be at least 1"):
        NearestNeighbors(0)
