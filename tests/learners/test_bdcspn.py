"""BD-CSPN against easyfsl, and against the paper's definition image by image."""

import numpy as np
import pytest
import torch
from easyfsl.methods import BDCSPN as Reference

from leo_lightning.common.errors import InputError
from leo_lightning.learners.bdcspn import BDCSPN
from tests.learners.tasks import episode_of


@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 5), (5, 1, 15), (5, 5, 15), (3, 4, 2)])
def test_predictions_are_easyfsls(N: int, K: int, Q: int):
    """Catches a shift of the other sign, weights normalised over classes, and prototypes of other images."""
    episode = episode_of(N, K, Q, E=8, B=4, spread=1.0)
    found = BDCSPN(epsilon=1.0)(episode).logits.flatten(1, 2)
    for support, query, logits in zip(episode.support, episode.query, found, strict=True):
        reference = Reference(torch.nn.Identity())
        reference.process_support_set(support.flatten(0, 1), torch.arange(N).repeat_interleave(K))
        torch.testing.assert_close(logits / 10, reference(query.flatten(0, 1)), rtol=0, atol=1e-12)


def transcribed(support: np.ndarray, query: np.ndarray, epsilon: float, most: int) -> np.ndarray:
    """Cosines (M, N) of one task, in loops."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    means = [images.mean(0) for images in support]
    shifted = query + np.mean([image for images in support for image in images], axis=0) - query.mean(0)
    chances = []
    for image in shifted:
        powers = np.exp([epsilon * cosine(image, mean) for mean in means])
        chances.append(powers / powers.sum())
    answers = []
    for n, images in enumerate(support):
        mine = [m for m, chance in enumerate(chances) if chance.argmax() == n]
        mine = sorted(mine, key=lambda m: -chances[m][n])[:most]
        members = [*images, *(shifted[m] for m in mine)]
        powers = np.exp([epsilon * cosine(image, means[n]) for image in members])
        prototype = sum(p * image for p, image in zip(powers / powers.sum(), members, strict=True))
        answers.append([cosine(image, prototype) for image in query])
    return np.array(answers).T


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_most_confident_queries_rectify(most: int):
    """Catches confidence by the cosine instead of the probability, and more queries than asked for."""
    episode = episode_of(N=4, K=2, Q=10, B=6, spread=1.2)
    found = BDCSPN(epsilon=10.0, most=most)(episode).logits.flatten(1, 2)
    for support, query, logits in zip(episode.support, episode.query, found, strict=True):
        expected = 10 * transcribed(support.numpy(), query.flatten(0, 1).numpy(), 10.0, most)
        np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-12)


def test_settings_that_mean_nothing():
    """Catches prototypes of nothing but equal weights, or of no query at all, by mistake."""
    with pytest.raises(InputError, match="epsilon is 0"):
        BDCSPN(epsilon=0.0)
    with pytest.raises(InputError, match="most is 0"):
        BDCSPN(most=0)
