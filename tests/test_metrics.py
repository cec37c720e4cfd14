"""Accuracy over tasks against NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from leo_lightning.metrics import TaskAccuracy, TaskScores


def logits_of(B: int, N: int = 4, Q: int = 5, seed: int = 0) -> Tensor:
    """Random logits that favour the right class a little."""
    logits = torch.randn(B, N, Q, N, generator=torch.Generator().manual_seed(seed))
    return logits + torch.eye(N)[:, None]


def accuracies(logits: Tensor, valid: Tensor | None = None) -> np.ndarray:
    """Share of right answers of each task, query by query."""
    B, N, Q, _ = logits.shape
    shares = []
    for b in range(B):
        hits = [
            int(np.argmax(logits[b, n, q].numpy()) == n)
            for n in range(N)
            for q in range(Q)
            if valid is None or valid[b, n, q]
        ]
        shares.append(sum(hits) / len(hits))
    return np.array(shares)


def scores(*batches: tuple) -> TaskScores:
    metric = TaskAccuracy()
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


def test_mean_and_interval():
    """Catches a population standard deviation, a forgotten square root, and an interval over queries."""
    logits = logits_of(60)
    found, expected = scores((logits, torch.arange(60))), accuracies(logits)
    np.testing.assert_array_equal(found.accuracy.numpy(), expected)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-14)
    assert found.ci95 == pytest.approx(1.96 * stats.sem(expected), rel=1e-12)
    low, high = stats.norm.interval(0.95, found.mean, stats.sem(expected))
    assert found.ci95 == pytest.approx((high - low) / 2, rel=1e-4)


def test_batches_add_up():
    """Catches a mean of batch means: the batches differ in size and in their number of queries."""
    first, second = logits_of(3, Q=5), logits_of(7, Q=2, seed=1)
    found = scores((first, torch.arange(3)), (second, torch.arange(3, 10)))
    expected = np.concatenate([accuracies(first), accuracies(second)])
    np.testing.assert_array_equal(found.accuracy.numpy(), expected)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-14)


def test_scores_are_in_the_order_of_task_numbers():
    """Catches accuracies that belong to another task, which spoils every paired comparison."""
    logits, task = logits_of(6), torch.tensor([40, 3, 11, 0, 25, 7])
    found = scores((logits[:4], task[:4]), (logits[4:], task[4:]))
    assert found.task.tolist() == [0, 3, 7, 11, 25, 40]
    expected = dict(zip(task.tolist(), accuracies(logits), strict=True))
    assert found.accuracy.tolist() == [expected[number] for number in found.task.tolist()]
    assert len(set(expected.values())) > 3


def test_a_task_counts_once():
    """Catches the padding of a distributed sampler: repeats would weigh more, and narrow the interval."""
    logits = logits_of(4)
    task = torch.tensor([2, 0, 1, 3])
    once = scores((logits, task))
    twice = scores((logits, task), (logits[:2], task[:2]))
    assert torch.equal(twice.task, once.task)
    assert torch.equal(twice.accuracy, once.accuracy)
    assert (twice.mean, twice.ci95) == (once.mean, once.ci95)


def test_the_first_of_two_answers_counts():
    """Catches a result that depends on the order of a scatter."""
    logits = logits_of(8)
    found = scores((logits, torch.tensor([5, 5, 1, 1, 5, 9, 1, 9])))
    assert found.accuracy.tolist() == [accuracies(logits)[row] for row in (2, 0, 5)]


def test_padding_is_not_scored():
    """Catches padded queries in the count of hits or of queries."""
    logits = logits_of(5)
    valid = torch.rand(5, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    assert len(valid.flatten(1).sum(1).unique()) > 1
    found = scores((logits, torch.arange(5), valid))
    np.testing.assert_allclose(found.accuracy.numpy(), accuracies(logits, valid), rtol=1e-15)
    assert not np.allclose(found.accuracy.numpy(), accuracies(logits))


def test_accuracy_is_in_double_precision():
    """Catches float32: 1/3 of a task must be 1/3 to the last digit."""
    logits = torch.eye(3)[:, None] * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    found = scores((logits[None], torch.zeros(1, dtype=torch.int64)))
    assert found.accuracy.dtype == torch.float64
    assert found.mean == 1 / 3


def test_one_task_has_no_interval():
    """Catches a warning, an interval of width 0, and scores without their dimension, for a single task."""
    found = scores((logits_of(1), torch.zeros(1, dtype=torch.int64)))
    assert found.task.tolist() == [0]
    assert found.accuracy.shape == (1,)
    assert math.isnan(found.ci95)


def test_compute_may_be_called_twice_and_between_updates():
    """Catches a compute that empties or caches the state."""
    logits = logits_of(6)
    metric = TaskAccuracy()
    metric.update(logits[:2], torch.arange(2))
    first = metric.compute()
    assert metric.compute().mean == first.mean
    metric.update(logits[2:], torch.arange(2, 6))
    assert metric.compute().mean == pytest.approx(accuracies(logits).mean(), rel=1e-14)
    assert len(first.task) == 2


def test_reset_forgets_everything():
    """Catches tasks of one epoch that count in the next."""
    logits = logits_of(6)
    metric = TaskAccuracy()
    metric.update(logits[:3], torch.arange(3))
    metric.compute()
    metric.reset()
    metric.update(logits[3:], torch.arange(3, 6))
    found = metric.compute()
    assert found.task.tolist() == [3, 4, 5]
    np.testing.assert_array_equal(found.accuracy.numpy(), accuracies(logits[3:]))
