"""Intervals of arrays and tensors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from leo_lightning.common.intervals import crossed_half_width, half_width


def test_half_width_of_arrays_and_tensors():
    """Against SciPy. Catches a deviation that divides by n in place of n - 1, for one of the two types."""
    values = np.random.default_rng(0).random(20)
    expected = pytest.approx(1.96 * stats.sem(values), rel=1e-12)
    assert half_width(values) == expected
    assert half_width(torch.from_numpy(values)) == expected


def test_one_value_has_no_interval():
    """Catches a warning or a division by zero where there is one task."""
    assert math.isnan(half_width(np.ones(1)))
    assert math.isnan(half_width(torch.ones(1)))


def test_interval_over_seeds_and_tasks_holds():
    """By simulation. Catches an interval over tasks alone, which here holds in half of all comparisons.

    Normal quantiles in place of Student's would hold in 0.83 of them.
    """
    generator = np.random.default_rng(0)
    covered, seeds, tasks = [], 3, 200
    for _ in range(2000):
        effects = 0.01 * generator.standard_normal((seeds, 1)), 0.03 * generator.standard_normal(tasks)
        values = effects[0] + effects[1] + 0.03 * generator.standard_normal((seeds, tasks))
        covered.append(abs(values.mean()) <= crossed_half_width(values))
    assert np.mean(covered) == pytest.approx(0.94, abs=0.02)


def test_interval_over_seeds_in_its_limits():
    """Catches an interval below that of the tasks where seeds agree, and another one for a single seed."""
    values = np.random.default_rng(0).random((1, 50))
    assert crossed_half_width(values) == half_width(values[0])
    alike = np.repeat(values, 3, axis=0)
    assert crossed_half_width(alike) == pytest.approx(stats.t.ppf(0.975, 49) * stats.sem(values[0]))
    assert crossed_half_width(np.zeros((3, 5))) == 0
    assert math.isnan(crossed_half_width(np.zeros((3, 1))))
