"""Label propagation against its definition in NumPy, and against scikit-learn's graph of neighbours."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import kneighbors_graph

from leo_lightning.common.errors import InputError
from leo_lightning.learners.label_propagation import LabelPropagation
from tests.learners.tasks import episode_of


@pytest.mark.parametrize(("N", "K", "Q", "k"), [(2, 1, 5, 2), (5, 1, 15, 10), (4, 5, 6, 3), (3, 2, 1, 50)])
def test_it_is_the_limit_of_the_iteration(N: int, K: int, Q: int, k: int):
    """Catches a graph that is not symmetric, an S that is not normalised on both sides, and the wrong rows.

    Zhou et al. define F as the limit of F ← αSF + (1 - α)Y.
    """
    episode = episode_of(N, K, Q, E=8, B=2, spread=1.0)
    found = LabelPropagation(alpha=0.8, neighbors=k, length_scale=0.6)(episode).logits.softmax(-1)
    for support, query, probability in zip(episode.support, episode.query, found, strict=True):
        images = np.concatenate([support.flatten(0, 1).numpy(), query.flatten(0, 1).numpy()])
        graph = kneighbors_graph(images, min(k, len(images) - 1)).toarray()
        graph = np.maximum(graph, graph.T)
        squared = ((images[:, None] - images) ** 2).sum(-1)
        W = graph * np.exp(-squared / (2 * 0.6**2))
        D = np.diag(W.sum(1) ** -0.5)
        S, Y = D @ W @ D, np.zeros((len(images), N))
        Y[: N * K] = np.repeat(np.eye(N), K, axis=0)
        F = Y
        for _ in range(300):
            F = 0.8 * S @ F + 0.2 * Y
        expected = F[N * K :] / F[N * K :].sum(1, keepdims=True)
        np.testing.assert_allclose(probability.flatten(0, 1).numpy(), expected, rtol=0, atol=1e-9)


def test_a_chain_leads_from_the_support_to_a_far_query():
    """Catches a query that is answered by its distance: the nearest example is of the other class."""
    angles = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.9, 2.1, 2.3, 2.5, 2.7, 2.9]]).double()
    images = torch.stack([angles.cos(), angles.sin()], dim=-1)[None]
    learner = LabelPropagation(alpha=0.99, neighbors=2, length_scale=0.15)
    asked = torch.cat([images[:, 0, 1:], images[:, 1, 1:]], dim=1)
    answers = learner.adapt(images[:, :, :1])(asked).argmax(-1)
    assert answers.tolist() == [[0] * 5 + [1] * 5]
    far, own, other = images[0, 0, 5], images[0, 0, 0], images[0, 1, 0]
    assert (far - other).norm() < (far - own).norm()


def test_queries_out_of_reach_are_undecided():
    """Catches NaN where no label arrives."""
    support = torch.eye(4).double()[None, :2, None]
    query = torch.tensor([[[0.0, 0, 1, 0], [0, 0, 0.999, 0.01], [1, 0.01, 0, 0]]]).double()
    learner = LabelPropagation(neighbors=1, length_scale=0.01)
    probability = learner.adapt(support)(query).softmax(-1)[0]
    torch.testing.assert_close(probability[:2], torch.full((2, 2), 0.5).double())
    assert probability[2, 0] > 0.99


def test_settings_that_mean_nothing():
    """Catches a flow without end, whose equations have no solution."""
    with pytest.raises(InputError, match=r"alpha is 1\.0: it must be between 0 and 1"):
        LabelPropagation(alpha=1.0)
