"""Predictions from the support alone, against scikit-learn."""

import numpy as np
import torch
from sklearn.linear_model import Ridge

from leo_lightning.data.episode import Episode
from leo_lightning.training.simple_fits import linear_fit, support_mean


def test_simple_fits_are_scikit_learns():
    """Catches a penalty that is not the noise's variance, a missing intercept and a mean of the queries."""
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(3, 1, n, 4, generator=generator) for n in (5, 7))
    episode = Episode(support, query, noise=0.7)
    for task in range(3):
        x, asked = (np.insert(part[task, 0, :, :3].double().numpy(), 3, 1, 1) for part in (support, query))
        y = support[task, 0, :, 3].double().numpy()
        theirs = Ridge(0.7**2, fit_intercept=False).fit(x, y).predict(asked)
        np.testing.assert_allclose(linear_fit(episode)[task].numpy(), theirs)
        np.testing.assert_allclose(support_mean(episode)[task].numpy(), np.full(7, y.mean()))
