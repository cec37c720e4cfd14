"""Intervals and calibration, against scipy and torchmetrics."""

import pytest
import scipy.stats
import torch
from torchmetrics.classification import MulticlassCalibrationError

from leo_lightning.compare.statistics import calibration_error, interval, leaders
from leo_lightning.data.episode import Episode
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.scoring import score


def test_interval_is_scipys():
    """Catches the biased variance, a missing square root, and one-sided quantiles."""
    values = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = interval(values)
    low, high = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert found.mean - found.half == pytest.approx(low, rel=1e-4)
    assert found.mean + found.half == pytest.approx(high, rel=1e-4)


def test_paired_difference_is_sharper():
    """Catches differences of means with independent intervals: 0.01 between methods, 0.1 between tasks."""
    generator = torch.Generator().manual_seed(2)
    tasks = 0.6 + 0.1 * torch.randn(100, dtype=torch.float64, generator=generator)
    other = tasks + 0.01 + 0.001 * torch.randn(100, dtype=torch.float64, generator=generator)
    low, high = scipy.stats.norm.interval(0.95, (other - tasks).mean(), scipy.stats.sem(other - tasks))
    found = interval(other - tasks)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-4)
    assert not found.holds_zero
    assert interval(tasks).half > 10 * found.half
    assert leaders({"a": tasks, "b": other}) == {"b"}
    assert leaders({"a": tasks, "b": other, "c": other - 1e-4 * tasks.sub(0.6).sign()}) == {"b", "c"}
    assert leaders({}) == set()


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_calibration_error_is_torchmetrics(scale: float):
    """Catches bins of the wrong edge, means of means over tasks, and squares in place of absolute values."""
    generator = torch.Generator().manual_seed(3)
    B, N, Q, E = 20, 5, 15, 8
    classes = torch.randn(B, N, 1, E, generator=generator)
    support = scale * (classes + torch.randn(B, N, 1, E, generator=generator))
    query = scale * (classes + torch.randn(B, N, Q, E, generator=generator))
    classifier = NearestCentroid().adapt(support)
    sums = score({"final": classifier}, Episode(support, query)).reliability.sum(0)
    probabilities = classifier(query).softmax(-1).reshape(-1, N)
    labels = torch.arange(N).repeat_interleave(Q).repeat(B)
    theirs = MulticlassCalibrationError(num_classes=N, n_bins=15, norm="l1")(probabilities, labels)
    assert calibration_error(sums) == pytest.approx(theirs.item(), abs=1e-5)
    assert calibration_error(sums) > 0.02
