"""Intervals of arrays and tensors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from leo_lightning.common.intervals import half_width


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
