"""Accuracy over tasks against NumPy and SciPy."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from leo_lightning.data.episode import Episode
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.training.scoring import BINS, score
from leo_lightning.training.task_scores import TaskScores, TaskTable, calibration_error


def shares(tasks: int, stages: int = 1, seed: int = 0) -> Tensor:
    """Accuracies over 75 queries."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(20, 70, (tasks, stages), generator=generator).double() / 75


def update(table: TaskTable, accuracy: Tensor, task: Tensor, names: Sequence[str] = ("final",)) -> None:
    """Add queries of which half are right, at a confidence of 0.7 in one of two bins."""
    reliability = torch.zeros(BINS, 3, dtype=torch.float64)
    reliability[10] = len(task) * torch.tensor([2.0, 1.4, 1.0])
    table.update(names, accuracy, task, reliability)


def scores(*batches: tuple) -> TaskScores:
    table = TaskTable()
    for batch in batches:
        update(table, *batch)
    return table.compute()["final"]


def test_mean_and_interval():
    """Catches a population standard deviation, a forgotten square root, and an interval over queries."""
    accuracy = shares(60)
    found, expected = scores((accuracy, torch.arange(60))), accuracy[:, 0].numpy()
    np.testing.assert_array_equal(found.values.numpy(), expected)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-14)
    assert found.ci95 == pytest.approx(1.96 * stats.sem(expected), rel=1e-12)
    low, high = stats.norm.interval(0.95, found.mean, stats.sem(expected))
    assert found.ci95 == pytest.approx((high - low) / 2, rel=1e-4)


def test_batches_add_up():
    """Catches a mean of batch means: the batches differ in size."""
    first, second = shares(3), shares(7, seed=1)
    found = scores((first, torch.arange(3)), (second, torch.arange(3, 10)))
    expected = torch.cat([first, second])[:, 0]
    assert torch.equal(found.values, expected)
    assert found.mean == pytest.approx(expected.mean().item(), rel=1e-14)


def test_stages_keep_their_names():
    """Catches the accuracy of one classifier under the name of another."""
    accuracy, task = shares(6, stages=3), torch.tensor([4, 3, 5, 0, 1, 2])
    names, table = ["before", "after", "final"], TaskTable()
    update(table, accuracy[:2], task[:2], names)
    update(table, accuracy[2:], task[2:], names)
    found = table.compute()
    assert list(found) == ["before", "after", "final"]
    for column, scores_of_stage in zip(accuracy.T, found.values(), strict=True):
        assert torch.equal(scores_of_stage.values, column[task.argsort()])


def test_scores_are_in_the_order_of_task_numbers():
    """Catches accuracies that belong to another task, which spoils every paired comparison."""
    accuracy, task = shares(6), torch.tensor([40, 3, 11, 0, 25, 7])
    found = scores((accuracy[:4], task[:4]), (accuracy[4:], task[4:]))
    assert found.task.tolist() == [0, 3, 7, 11, 25, 40]
    expected = dict(zip(task.tolist(), accuracy[:, 0].tolist(), strict=True))
    assert found.values.tolist() == [expected[number] for number in found.task.tolist()]
    assert len(set(expected.values())) > 3


def test_one_task_has_no_interval():
    """Catches a warning, an interval of width 0, and scores without their dimension, for a single task."""
    found = scores((shares(1), torch.zeros(1, dtype=torch.int64)))
    assert found.task.tolist() == [0]
    assert found.values.shape == (1,)
    assert math.isnan(found.ci95)


def test_compute_may_be_called_twice_and_between_updates():
    """Catches a compute that empties or caches the state."""
    accuracy = shares(6)
    table = TaskTable()
    update(table, accuracy[:2], torch.arange(2))
    first = table.compute()["final"]
    assert table.compute()["final"].mean == first.mean
    update(table, accuracy[2:], torch.arange(2, 6))
    assert table.compute()["final"].mean == pytest.approx(accuracy.mean().item(), rel=1e-14)
    assert len(first.task) == 2


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_calibration_error_is_torchmetrics(scale: float):
    """Catches bins of the wrong edge or of one weight, means over tasks, and squares for absolute values."""
    generator = torch.Generator().manual_seed(3)
    B, N, Q, E = 20, 5, 15, 8
    classes = torch.randn(B, N, 1, E, generator=generator)
    support = scale * (classes + torch.randn(B, N, 1, E, generator=generator))
    query = scale * (classes + torch.randn(B, N, Q, E, generator=generator))
    classifier = NearestCentroid().adapt(support)
    sums = score({"final": classifier}, Episode(support, query)).reliability
    probabilities = classifier(query).softmax(-1).reshape(-1, N)
    labels = torch.arange(N).repeat_interleave(Q).repeat(B)
    theirs = MulticlassCalibrationError(num_classes=N, n_bins=15, norm="l1")(probabilities, labels)
    assert calibration_error(sums) == pytest.approx(theirs.item(), abs=1e-5)
    assert calibration_error(sums) > 0.02


def test_calibration_error_belongs_to_final():
    """Catches the error of another stage, and one of the last meta-batch alone."""
    names, table = ("first", "final"), TaskTable()
    for task, sums in enumerate(([2.0, 1.0, 2.0], [1.0, 0.5, 0.0])):
        reliability = torch.zeros(BINS, 3, dtype=torch.float64)
        reliability[7] = torch.tensor(sums)
        table.update(names, shares(1, 2), torch.tensor([task]), reliability)
    found = table.compute()
    assert not found["first"].extra
    assert found["final"].extra["calibration_error"] == pytest.approx(abs(2 - 1.5) / 3)
