"""Matching Networks against a transcription of the paper."""

import math

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners import matching
from leo_lightning.learners.knn import NearestNeighbors
from leo_lightning.learners.matching import MatchingNetworks
from tests.learners.tasks import episode_of, moved
from tests.oracles import metric_numpy as oracle


@pytest.mark.parametrize("steps", [None, 1, 3])
@pytest.mark.parametrize(("size", "hidden"), [(None, 0), (4, 5)])
@pytest.mark.parametrize("K", [1, 3])
def test_probabilities_are_the_papers(
    K: int, size: int | None, hidden: int, steps: int | None, monkeypatch: pytest.MonkeyPatch
):
    """Catches attention within a class, a dot product for the cosine, a wrong LSTM, read or connection."""
    monkeypatch.setattr(matching, "PROCESSING_STEPS", steps)
    learner = MatchingNetworks(6, size, hidden, temperature=0.5, full_context=steps is not None)
    learner = moved(learner).eval()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=3, K=K, Q=2)
    found = learner(episode).logits.softmax(-1).detach().numpy()
    for b, n, q in np.ndindex(found.shape[:3]):
        expected = oracle.matching(weights, episode.support[b].numpy(), episode.query[b, n, q].numpy(), steps)
        np.testing.assert_allclose(found[b, n, q], expected, rtol=1e-10)


def test_a_low_temperature_is_the_nearest_neighbour():
    """Catches a temperature that multiplies, and one that is not as asked for."""
    episode = episode_of(E=6, K=3, Q=20, spread=1.5)
    learner = MatchingNetworks(6, temperature=1e-3).double()
    expected = NearestNeighbors(1)(episode).logits.argmax(-1)
    assert torch.equal(learner(episode).logits.argmax(-1), expected)
    torch.testing.assert_close(learner(episode).diagnostics["temperature"].item(), 1e-3)


def test_order_matters_with_full_context_alone():
    """Catches a context that reads nothing, and one that acts without being asked for."""
    episode = episode_of(K=3)
    other = Episode(episode.support[:, :, [2, 0, 1]], episode.query)
    for full_context in (False, True):
        learner = moved(MatchingNetworks(6, full_context=full_context)).eval()
        assert torch.allclose(learner(other).logits, learner(episode).logits) != full_context


def test_full_context_is_not_compiled():
    """Catches a page of torch.compile's own words at the first step."""
    with pytest.raises(InputError, match=r"model\.compile cannot compile full_context"):
        MatchingNetworks(6, full_context=True).check_compilable()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: it must be a number above 0"),
        ({"temperature": math.nan}, "temperature is nan: it must be a number above 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all."""
    with pytest.raises(InputError, match=message):
        MatchingNetworks(6, **settings)
