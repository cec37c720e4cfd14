"""Intervals, paired differences and calibration, out of what is known of each task."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float64
from torch import Tensor


class Interval(NamedTuple):
    """A mean over tasks with its uncertainty."""

    mean: float
    half: float
    """Half width of the 95% interval: 1.96 standard errors, as `metrics.TaskScores` has it."""

    @property
    def holds_zero(self) -> bool:
        """Whether the mean may well be zero."""
        return abs(self.mean) <= self.half


def interval(values: Float64[Tensor, " tasks"]) -> Interval:
    """Mean over tasks with its 95% interval."""
    return Interval(values.mean().item(), 1.96 * values.std().item() / math.sqrt(len(values)))


def calibration_error(reliability: Float64[Tensor, "bins 3"]) -> float:
    """Expected calibration error: mean over queries of |share of hits - mean confidence| of their bin.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, Eq. 3.

    Args:
        reliability: queries, confidences and hits by bin, summed over tasks; see `scoring.Scores`.
    """
    count, confidence, hits = reliability.T
    return ((hits - confidence).abs().sum() / count.sum()).item()


def leaders(accuracies: Mapping[str, Float64[Tensor, " tasks"]]) -> set[str]:
    """The best method, and those whose difference to it, task by task, may well be zero."""
    if not accuracies:
        return set()
    best = max(accuracies.values(), key=lambda accuracy: accuracy.mean().item())
    return {label for label, each in accuracies.items() if interval(each - best).holds_zero}
