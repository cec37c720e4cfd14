"""Principal components, against eigenvalues of the covariance."""

import pytest
import torch

from leo_lightning.runs.pictures.principal_components import principal_components


def test_projection():
    """Catches a projection of another scale, a sign that depends on the library, and too few dimensions."""
    rows = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores, shares = principal_components(rows)
    centred = rows - rows.mean(0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred).flip(0)
    torch.testing.assert_close(scores.square().sum(0), eigenvalues[:2])
    assert shares == pytest.approx((eigenvalues / eigenvalues.sum())[:2].tolist())
    torch.testing.assert_close(principal_components(-rows)[0].abs(), scores.abs())
    assert (scores.amax(0) == scores.abs().amax(0)).all()
    flat, shares = principal_components(torch.tensor([[1.0], [2.0]]))
    assert sorted(flat.flatten().tolist()) == pytest.approx([-0.5, 0.0, 0.0, 0.5])
    assert shares == [1.0, 0.0]
    assert principal_components(torch.zeros(3, 2))[1] == [0.0, 0.0]
