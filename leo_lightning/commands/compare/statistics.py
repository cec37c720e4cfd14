"""Intervals and paired differences, out of what is known of each task."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float64
from torch import Tensor

from leo_lightning.common.intervals import half_width


class Interval(NamedTuple):
    """A mean over tasks with its uncertainty."""

    mean: float
    half: float
    """Half-width of the 95% interval."""

    @property
    def holds_zero(self) -> bool:
        """Whether the mean may well be zero."""
        return abs(self.mean) <= self.half


def interval(values: Float64[Tensor, " tasks"]) -> Interval:
    """Mean over tasks with its 95% interval."""
    return Interval(values.mean().item(), half_width(values))


def leaders(accuracies: Mapping[str, Float64[Tensor, " tasks"]]) -> set[str]:
    """The best method, and those whose difference to it, task by task, may well be zero."""
    if not accuracies:
        return set()
    best = max(accuracies.values(), key=lambda accuracy: accuracy.mean().item())
    return {label for label, each in accuracies.items() if interval(each - best).holds_zero}
