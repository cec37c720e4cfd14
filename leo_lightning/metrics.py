"""Accuracy over tasks, with its interval, and calibration."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class TaskScores:
    """Accuracy of every task, in the order of the task numbers.

    No tuple, or torchmetrics would take it apart and make scalars of what has one task.

    Args:
        task: numbers of the tasks.
        accuracy: share of each task's queries that are answered right.
        calibration_error: see `calibration_error`; None: not measured.
    """

    def __init__(
        self,
        task: Int64[Tensor, " tasks"],
        accuracy: Float[Tensor, " tasks"],
        calibration_error: float | None = None,
    ) -> None:
        self.task = task
        self.accuracy = accuracy
        self.calibration_error = calibration_error

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.task)

    @property
    def mean(self) -> float:
        """Mean over tasks, between 0 and 1."""
        return self.accuracy.mean().item()

    @property
    def ci95(self) -> float:
        """See `half_width`."""
        return half_width(self.accuracy)


def half_width(values: Float[Tensor, " tasks"]) -> float:
    """Half width of the 95% confidence interval of a mean over tasks: 1.96 standard errors; NaN for one."""
    if len(values) == 1:
        return math.nan
    return 1.96 * values.std().item() / math.sqrt(len(values))


def calibration_error(reliability: Float64[Tensor, "bins 3"]) -> float:
    """Expected calibration error: mean over queries of |share of hits - mean confidence| of their bin.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks. ICML 2017, Eq. 3.

    Args:
        reliability: queries, confidences and hits by bin, summed over tasks; see `scoring.Scores`.
    """
    count, confidence, hits = reliability.T
    return ((hits - confidence).abs().sum() / count.sum()).item()


class TaskAccuracy(Metric):
    """Collects the accuracy on each task of several classifiers, and the reliability of `final`.

    A task that arrives twice (a distributed sampler may pad) counts once.

    Args:
        stages: names of the classifiers.
    """

    full_state_update = False
    higher_is_better = True
    task: list[Tensor]
    accuracy: list[Tensor]
    reliability: list[Tensor]

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.add_state("task", default=[], dist_reduce_fx="cat")
        self.add_state("accuracy", default=[], dist_reduce_fx="cat")
        self.add_state("reliability", default=[], dist_reduce_fx="cat")

    def update(
        self,
        accuracy: Float64[Tensor, "B S"],
        task: Int64[Tensor, " B"],
        reliability: Float64[Tensor, "B bins 3"],
    ) -> None:
        """Add the tasks of a meta-batch."""
        self.task.append(task.to(accuracy.device))
        self.accuracy.append(accuracy)
        self.reliability.append(reliability)

    def compute(self) -> dict[str, TaskScores]:
        """Scores of all tasks so far, by stage."""
        task, accuracy = dim_zero_cat(self.task), dim_zero_cat(self.accuracy)
        unique, where = torch.unique(task, return_inverse=True)
        first = torch.empty_like(unique).scatter_(0, where.flip(0), torch.arange(len(task)).flip(0).to(task))
        error = calibration_error(dim_zero_cat(self.reliability)[first].sum(0))
        columns = zip(self.stages, accuracy[first].cpu().T, strict=True)
        return {
            stage: TaskScores(unique.cpu(), column, error if stage == "final" else None)
            for stage, column in columns
        }
