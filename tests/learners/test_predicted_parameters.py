"""Parameters from activations against a transcription of the paper."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.noise import Masks
from leo_lightning.learners.predicted_parameters import PredictedParameters, Statistics
from tests.learners.tasks import episode_of, moved
from tests.oracles import metric_numpy as oracle


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("K", [1, 3])
def test_probabilities_are_the_papers(K: int, hidden: int):
    """Catches a map of each image before the mean, queries that are mapped, a lost length or hidden layer."""
    learner = moved(PredictedParameters(6, hidden, temperature=0.5)).eval()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=3, K=K, Q=2)
    found = learner(episode).logits.softmax(-1).detach().numpy()
    for b, n, q in np.ndindex(found.shape[:3]):
        means = episode.support[b].numpy().mean(1)
        expected = oracle.predicted_parameters(weights, means, episode.query[b, n, q].numpy())
        np.testing.assert_allclose(found[b, n, q], expected, rtol=1e-11)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_statistic_is_the_mean_or_one_image(dropout: float):
    """Catches an image of another class, a sum for a mean, and dropout that gets lost."""
    learner = moved(PredictedParameters(6, 4, dropout, mean_probability=0.5)).train()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode, seeds = episode_of(N=6, K=3, Q=2), [3, 4]
    noise = learner.draw_noise(episode, seeds)
    assert isinstance(noise, Statistics)
    kinds = {tuple(row) for row in noise.weights.flatten(0, 1).mul(3).round().tolist()}
    assert (1, 1, 1) in kinds
    assert len(kinds) > 2
    assert (noise.masks.support is None) == (dropout == 0)
    found = learner(episode, seeds).logits.softmax(-1).detach().numpy()
    images = noise.masks.on(episode)
    statistics = np.einsum("bnk,bnke->bne", noise.weights.numpy(), images.support.numpy())
    for b, n, q in np.ndindex(found.shape[:3]):
        query = images.query[b, n, q].numpy()
        expected = oracle.predicted_parameters(weights, statistics[b], query)
        np.testing.assert_allclose(found[b, n, q], expected, rtol=1e-10)


@pytest.mark.parametrize("probability", [0.0, 0.7, 0.99])
def test_means_are_as_frequent_as_asked_for(probability: float):
    """Catches a probability of the other case, and images that are not drawn alike."""
    learner, episode = PredictedParameters(6, mean_probability=probability), episode_of(N=20, K=4, B=300)
    weights = learner.draw_noise(episode, list(range(300))).weights.flatten(0, 1)
    single = weights[weights.amax(-1) == 1]
    assert abs(1 - len(single) / len(weights) - probability) < 0.02
    deviation = 4 * math.sqrt(0.25 * 0.75 / len(single))
    assert (single.mean(0) - 0.25).abs().max() < deviation


def test_nothing_is_drawn_without_need():
    """Catches noise in evaluation, at 1-shot, and with means alone; and a state that moves with seeds."""
    episode, one = episode_of(K=3), episode_of(K=1)
    learner = PredictedParameters(6).double()
    plain = learner.outcome(episode, Masks()).logits
    torch.testing.assert_close(learner.eval()(episode).logits, plain)
    assert learner.draw_noise(one, [1, 2]) == Masks()
    assert PredictedParameters(6, mean_probability=1.0).draw_noise(episode, [1, 2]) == Masks()
    state = torch.get_rng_state()
    learner.draw_noise(episode, [1, 2])
    assert torch.equal(torch.get_rng_state(), state)


def test_training_starts_from_cosines_to_class_means():
    """Catches a start that throws away what the features know, and a temperature that is not as asked for."""
    episode = episode_of(K=3)
    learner = PredictedParameters(6, temperature=0.25).double().eval()
    means = F.normalize(episode.support.mean(2), dim=-1)
    expected = torch.einsum("bnqe,bme->bnqm", episode.query, means) / 0.25
    torch.testing.assert_close(learner(episode).logits, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(learner(episode).diagnostics["temperature"].item(), 0.25)


def test_samples_of_a_task_hang_on_its_seed_alone():
    """Catches statistics by a task's place in the meta-batch."""
    learner, episode = moved(PredictedParameters(6, mean_probability=0.3)), episode_of(K=3)
    together = learner(episode, [7, 8]).logits
    alone = learner(Episode(episode.support[1:], episode.query[1:]), [8]).logits
    torch.testing.assert_close(alone[0], together[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: it must be a number above 0"),
        ({"hidden": -1}, "hidden is -1: it must be at least 0"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be at least 0 and below 1"),
        ({"mean_probability": 1.1}, "mean_probability is 1.1: it must be from 0 to 1"),
        ({"mean_probability": math.nan}, "mean_probability is nan: it must be from 0 to 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all."""
    with pytest.raises(InputError, match=message):
        PredictedParameters(6, **settings)
