"""LaplacianShot against easyfsl."""

import pytest
import torch
from easyfsl.methods import LaplacianShot as Reference

from leo_lightning.learners.laplacian_shot import LaplacianShot
from tests.learners.tasks import episode_of


@pytest.fixture
def in_float64():
    """Let easyfsl make its graph in the precision of the features."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 5), (5, 1, 15), (5, 5, 15), (3, 4, 3)])
@pytest.mark.parametrize(("regularization", "neighbors", "steps"), [(0.7, 2, 20), (2.0, 4, 50), (0.0, 1, 3)])
def test_assignments_are_easyfsls(N: int, K: int, Q: int, regularization: float, neighbors: int, steps: int):
    """Catches a symmetric graph, a query that is its own neighbour, and iterations that end elsewhere."""
    episode = episode_of(N, K, Q, E=8, B=4, spread=1.0)
    found = LaplacianShot(regularization, neighbors, steps)(episode).logits.flatten(1, 2)
    for support, query, logits in zip(episode.support, episode.query, found, strict=True):
        reference = Reference(
            torch.nn.Identity(),
            inference_steps=steps,
            knn=neighbors + 1,  # it counts the query itself
            lambda_regularization=regularization,
        )
        reference.process_support_set(support.flatten(0, 1), torch.arange(N).repeat_interleave(K))
        expected = reference(query.flatten(0, 1))
        torch.testing.assert_close(logits.softmax(-1), expected, rtol=0, atol=1e-10)


def test_embeddings_are_scaled():
    """Catches distances that are far larger than λ, so that neighbours count for nothing."""
    episode = episode_of()
    longer = episode._replace(support=3 * episode.support, query=5 * episode.query)
    torch.testing.assert_close(LaplacianShot()(longer).logits, LaplacianShot()(episode).logits)
