"""Distances to the nearest example, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from leo_lightning.learners.parts import nearest_example
from leo_lightning.learners.parts.nearest_example import nearest_distance


@pytest.mark.parametrize("block", [1, 130, 1 << 22])
def test_distances_are_scikit_learns(block: int, monkeypatch: pytest.MonkeyPatch):
    """Catches a squared distance, another task's support, and queries that change places between blocks."""
    monkeypatch.setattr(nearest_example, "_BLOCK", block)
    draw = torch.Generator().manual_seed(0)
    support = torch.randn(3, 4, 2, 6, generator=draw, dtype=torch.float64)
    query = torch.randn(3, 5, 7, 6, generator=draw, dtype=torch.float64)
    found = nearest_distance(support, query)
    for images, queries, distances in zip(support, query, found, strict=True):
        reference = NearestNeighbors(n_neighbors=1).fit(images.flatten(0, 1).numpy())
        expected, _ = reference.kneighbors(queries.flatten(0, 1).numpy())
        np.testing.assert_allclose(distances.flatten().numpy(), expected[:, 0], rtol=1e-12)


def test_padding_is_not_a_neighbour():
    """Catches padding that counts as an image, at zero or at the query itself."""
    support = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]], [[6.0, 8.0], [0.0, 1.0]]]])
    valid = torch.tensor([[[True, False], [True, False]]])
    query = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [6.0, 9.0]]])
    found = nearest_distance(support, query, valid)
    torch.testing.assert_close(found, torch.tensor([[5.0, 18**0.5, 1.0]]))


def test_queries_of_one_task_stand_for_all():
    """Catches a broadcast that fails, or takes the first task's support for all tasks."""
    support, query = torch.randn(3, 2, 2, 5), torch.randn(1, 9, 5)
    found = nearest_distance(support, query)
    torch.testing.assert_close(found, nearest_distance(support, query.expand(3, -1, -1)))
    assert (found[0] != found[1]).any()


def test_a_support_image_is_at_distance_zero():
    """Catches cancellation: ‖s‖² - 2 s·q + ‖q‖² of equal float32 rows is around 1e-7, its root 3e-4."""
    support = torch.nn.functional.normalize(torch.randn(1, 5, 3, 640), dim=-1)
    assert (nearest_distance(support, support) == 0).all()


def test_gradients_flow():
    """Catches an operation that autograd cannot follow, by finite differences."""
    support = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nearest_distance, (support, query))
