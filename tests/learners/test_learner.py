"""The classifiers that all learners share."""

import pytest
import torch

from leo_lightning.learners.learner import LinearClassifier


@pytest.mark.parametrize("arrangement", [(7,), (3, 4), (2, 3, 2), (1,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_classifier_takes_any_arrangement_of_queries(arrangement: tuple[int, ...], with_bias: bool):
    """Catches logits of another query, task or class, and a bias of another class."""
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(2, 5, 6, generator=generator), torch.randn(2, 5, generator=generator)
    query = torch.randn(2, *arrangement, 6, generator=generator)
    logits = LinearClassifier(weight, bias if with_bias else None)(query)
    assert logits.shape == (2, *arrangement, 5)
    for b in range(2):
        expected = query[b] @ weight[b].T + (bias[b] if with_bias else 0)
        torch.testing.assert_close(logits[b], expected)
