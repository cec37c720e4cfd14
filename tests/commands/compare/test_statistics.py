"""Intervals, against scipy."""

import pytest
import scipy.stats
import torch

from leo_lightning.commands.compare.statistics import interval, leaders


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
