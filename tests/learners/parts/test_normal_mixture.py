"""Distributions of values: against torch.distributions and SciPy."""

import numpy as np
import torch
from scipy import stats
from torch.distributions import Categorical, MixtureSameFamily, Normal

from leo_lightning.data.functions import AMPLITUDE, PHASE, SLOPE, sample_functions, sample_points
from leo_lightning.learners.parts.normal_mixture import Predictive, of_samples
from leo_lightning.training.ideal_observer import predict


def mixture(seed: int = 0) -> Predictive:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    mean = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    std = 0.2 + torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    return Predictive(weight / weight.sum(1, keepdim=True), mean, std)


def test_a_mixture_is_torchs():
    """Catches a weight that is left out, a variance for a standard deviation, and a sum over the points."""
    found = mixture()
    parts = Normal(found.mean.transpose(1, 2), found.std.transpose(1, 2))
    theirs = MixtureSameFamily(Categorical(found.weight[:, None].expand(-1, 4, -1)), parts)
    values = torch.linspace(-2, 2, 8, dtype=torch.float64).view(2, 4)
    torch.testing.assert_close(found.log_density(values), theirs.log_prob(values))
    torch.testing.assert_close(found.rank(values), theirs.cdf(values))
    torch.testing.assert_close(found.average(), theirs.mean)
    torch.testing.assert_close(found.spread(), theirs.stddev)


def test_samples_have_equal_weights():
    """Catches noise that is not added to what functions say."""
    means = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
    found = of_samples(means, 0.5)
    torch.testing.assert_close(found.average(), torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(found.spread(), torch.tensor([[1.25**0.5, 0.5]]))


def prior(family: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a family's two linear coefficients, by a million draws."""
    rng = np.random.default_rng(family)
    if family == 1:
        drawn = rng.uniform(*SLOPE, (2, 1_000_000))
    else:
        a, b = rng.uniform(*AMPLITUDE, 1_000_000), rng.uniform(*PHASE, 1_000_000)
        drawn = np.stack([a * np.cos(b), -a * np.sin(b)])
    return drawn.mean(1), np.cov(drawn)


def test_the_observers_are_bayesian():
    """Catches a prior, an evidence or a posterior that is not the family's: SciPy's normal in full."""
    episode = sample_points(range(6), 0, "test", 4, 3, 0.3)
    inputs = episode.query[:, 0, :, 0]
    found = predict(episode.support[:, 0], inputs, 0.3)
    for task in range(6):
        x, y = episode.support[task, 0].double().numpy().T
        asked, logs = inputs[task].double().numpy(), []
        for family in (0, 1):
            mean, covariance = prior(family)

            def features(x: np.ndarray, family: int = family) -> np.ndarray:
                return np.stack([x, np.ones_like(x)] if family else [np.sin(x), np.cos(x)], 1)

            both = features(np.concatenate([x, asked]))
            joint = both @ covariance @ both.T + 0.09 * np.eye(len(both))
            seen, cross = joint[:4, :4], joint[4:, :4]
            logs.append(stats.multivariate_normal(both[:4] @ mean, seen).logpdf(y))
            expected = both[4:] @ mean + cross @ np.linalg.solve(seen, y - both[:4] @ mean)
            variance = np.diag(joint[4:, 4:] - cross @ np.linalg.solve(seen, cross.T))
            np.testing.assert_allclose(found.mean[task, family], expected, rtol=0.02, atol=0.02)
            np.testing.assert_allclose(found.std[task, family], np.sqrt(variance), rtol=0.02)
        weight = np.exp(logs - np.logaddexp(*logs))
        np.testing.assert_allclose(found.weight[task], weight, atol=0.02)


def test_to_know_the_family_helps():
    """Catches an oracle that is told another family."""
    episode = sample_points(range(500), 0, "test", 5, 10, 0.3)
    family, values = sample_functions(range(500), 0, "test").family, episode.query[:, 0, :, 1]
    errors = [
        (predict(episode.support[:, 0], episode.query[:, 0, :, 0], 0.3, known).average() - values)
        .square()
        .mean()
        for known in (family, None, 1 - family)
    ]
    assert 0.09 < errors[0] < errors[1] < errors[2]
