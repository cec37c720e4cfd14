"""Durations."""

import pytest

from leo_lightning.common.clock import clock


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00:00"), (59.7, "0:01:00"), (36_061.0, "10:01:01")])
def test_clock(seconds: float, text: str):
    """Catches 60 seconds that do not carry, and minutes without their leading zero."""
    assert clock(seconds) == text
