"""Dynamic few-shot learning against a transcription of the paper."""

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.dynamic_few_shot import DynamicFewShot
from leo_lightning.learners.prototypical import PrototypicalNetworks
from tests.learners.tasks import episode_of, moved
from tests.oracles import metric_numpy as oracle


@pytest.mark.parametrize(("size", "hidden"), [(None, 0), (4, 5)])
@pytest.mark.parametrize("K", [1, 3])
def test_probabilities_are_the_papers(K: int, size: int | None, hidden: int):
    """Catches attention over the mean and not the images, keys for weights, a lost length, scale or bias."""
    learner = moved(DynamicFewShot(6, size, hidden, bases=7, temperature=0.5)).eval()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=3, K=K, Q=2)
    found = learner(episode).logits.softmax(-1).detach().numpy()
    for b, n, q in np.ndindex(found.shape[:3]):
        expected = oracle.dynamic_few_shot(
            weights, episode.support[b].numpy(), episode.query[b, n, q].numpy()
        )
        np.testing.assert_allclose(found[b, n, q], expected, rtol=1e-11)


def test_training_starts_from_cosines_to_class_means():
    """Catches a memory of random vectors that throws away what the features know, and another temperature."""
    episode = episode_of(K=1)
    learner = DynamicFewShot(6, bases=7, temperature=0.25).double()
    expected = PrototypicalNetworks(6, distance="cosine", temperature=0.25).double()(episode).logits
    torch.testing.assert_close(learner(episode).logits, expected)
    diagnostics = learner(episode).diagnostics
    assert {name: round(value.item(), 6) for name, value in diagnostics.items()} == {
        "temperature": 0.25,
        "attention_sharpness": 10.0,
        "attention_scale": 0.0,
    }


def test_the_memory_is_as_large_as_asked_for():
    """Catches an argument that is not listened to, and a memory that hangs on the way."""
    learner = DynamicFewShot(6, size=4, bases=9)
    assert learner.generator.keys.shape == learner.generator.weights.shape == (9, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: it must be a number above 0"),
        ({"bases": 0}, "bases is 0: it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all."""
    with pytest.raises(InputError, match=message):
        DynamicFewShot(6, **settings)
