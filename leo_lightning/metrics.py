"""Accuracy over tasks, with its interval."""

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
    """

    def __init__(self, task: Int64[Tensor, " tasks"], accuracy: Float[Tensor, " tasks"]) -> None:
        self.task = task
        self.accuracy = accuracy

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
        """Half width of the 95% confidence interval of the mean: 1.96 standard errors over tasks."""
        if self.count == 1:
            return math.nan
        return 1.96 * self.accuracy.std().item() / math.sqrt(self.count)


class TaskAccuracy(Metric):
    """Collects the accuracy on each task of several classifiers.

    A task that arrives twice (a distributed sampler may pad) counts once.

    Args:
        stages: names of the classifiers.
    """

    full_state_update = False
    higher_is_better = True
    task: list[Tensor]
    accuracy: list[Tensor]

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.add_state("task", default=[], dist_reduce_fx="cat")
        self.add_state("accuracy", default=[], dist_reduce_fx="cat")

    def update(self, accuracy: Float64[Tensor, "B S"], task: Int64[Tensor, " B"]) -> None:
        """Add the tasks of a meta-batch."""
        self.task.append(task.to(accuracy.device))
        self.accuracy.append(accuracy)

    def compute(self) -> dict[str, TaskScores]:
        """Scores of all tasks so far, by stage."""
        task, accuracy = dim_zero_cat(self.task), dim_zero_cat(self.accuracy)
        unique, where = torch.unique(task, return_inverse=True)
        first = torch.empty_like(unique).scatter_(0, where.flip(0), torch.arange(len(task)).flip(0).to(task))
        columns = zip(self.stages, accuracy[first].cpu().T, strict=True)
        return {stage: TaskScores(unique.cpu(), column) for stage, column in columns}
