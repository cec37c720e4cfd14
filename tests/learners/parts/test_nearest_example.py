"""Distance to the nearest example."""

import torch

from leo_lightning.learners.parts.nearest_example import nearest_distance


def test_distances_one_by_one():
    """Catches the examples of another task, of one class only, a square, or padding that counts."""
    support, query = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 6, 2, 5).double()
    valid = torch.rand(2, 3, 4) < 0.6
    valid[:, :, 0] = True
    support[~valid] = query[0, 0, 0]
    distances, masked = nearest_distance(support, query), nearest_distance(support, query, valid)
    assert distances.shape == masked.shape == (2, 6, 2)
    for task in range(2):
        for row in range(6):
            for place in range(2):
                gaps = (support[task] - query[task, row, place]).square().sum(-1).sqrt()
                torch.testing.assert_close(distances[task, row, place], gaps.min())
                torch.testing.assert_close(masked[task, row, place], gaps[valid[task]].min())
