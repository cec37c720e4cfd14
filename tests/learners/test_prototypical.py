"""Prototypical Networks against a transcription of the paper."""

import inspect
import math

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.prototypical import PrototypicalNetworks
from tests.learners.tasks import episode_of, moved
from tests.oracles import metric_numpy as oracle


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("size", [None, 4, 9])
def test_probabilities_are_the_papers(distance: str, hidden: int, size: int | None):
    """Catches a distance without its square, prototypes of raw images, a lost branch, 1/τ for τ."""
    learner = moved(PrototypicalNetworks(6, size, hidden, distance=distance, temperature=0.5)).eval()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=3, K=2)
    found = learner(episode).logits.softmax(-1).detach().numpy()
    for b, n, q in np.ndindex(found.shape[:3]):
        support, query = episode.support[b].numpy(), episode.query[b, n, q].numpy()
        expected = oracle.prototypical(weights, support, query, distance)
        np.testing.assert_allclose(found[b, n, q], expected, rtol=1e-11)


def test_training_starts_from_the_nearest_centroid():
    """Catches a start that throws away what the features know, and a temperature that is not as asked for."""
    episode = episode_of(E=6, K=3)
    for hidden in (0, 5):
        for size in (None, 9):  # no dimension is lost: distances stay
            learner = PrototypicalNetworks(6, size, hidden, temperature=0.25).double()
            expected = (NearestCentroid()(episode).logits / 0.25).log_softmax(-1)
            found = learner(episode).logits
            torch.testing.assert_close(found.log_softmax(-1), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(learner(episode).diagnostics["temperature"].item(), 0.25)


def test_a_linear_embedding_gives_a_linear_classifier():
    """Catches the slower way for the map that the methods have by default."""
    support = episode_of().support
    assert isinstance(PrototypicalNetworks(6).double().adapt(support), LinearClassifier)
    assert not isinstance(PrototypicalNetworks(6, hidden=2).double().adapt(support), LinearClassifier)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperatures_are_refused(temperature: float):
    """Catches the logarithm of what has none."""
    with pytest.raises(InputError, match="temperature is"):
        PrototypicalNetworks(6, temperature=temperature)


def test_an_unknown_distance_is_refused():
    """Catches any other word that means euclidean, where nobody checks the types."""
    build = inspect.unwrap(PrototypicalNetworks.__init__)
    with pytest.raises(InputError, match="distance is 'cosinus': it must be euclidean or cosine"):
        build(PrototypicalNetworks.__new__(PrototypicalNetworks), distance="cosinus")
