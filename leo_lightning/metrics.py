"""Accuracy over tasks, with its interval."""

import math

import torch
from jaxtyping import Bool, Float, Int64
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
    """Collects the share of queries that each task gets right; float64, so that the mean has no noise.

    A task that arrives twice (a distributed sampler may pad) counts once.
    """

    full_state_update = False
    higher_is_better = True
    task: list[Tensor]
    accuracy: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("task", default=[], dist_reduce_fx="cat")
        self.add_state("accuracy", default=[], dist_reduce_fx="cat")

    def update(
        self,
        logits: Float[Tensor, "B N Q N"],
        task: Int64[Tensor, " B"],
        valid: Bool[Tensor, "B N Q"] | None = None,
    ) -> None:
        """Add the tasks of a meta-batch; the label of a query is its class row."""
        labels = torch.arange(logits.shape[1], device=logits.device)[:, None]
        hits = (logits.argmax(-1) == labels).double()
        if valid is None:
            accuracy = hits.flatten(1).mean(1)
        else:
            accuracy = (hits * valid).flatten(1).sum(1) / valid.flatten(1).sum(1)
        self.task.append(task.to(accuracy.device))
        self.accuracy.append(accuracy)

    def compute(self) -> TaskScores:
        """Scores of all tasks so far."""
        task, accuracy = dim_zero_cat(self.task), dim_zero_cat(self.accuracy)
        unique, where = torch.unique(task, return_inverse=True)
        first = torch.empty_like(unique).scatter_(0, where.flip(0), torch.arange(len(task)).flip(0).to(task))
        return TaskScores(unique.cpu(), accuracy[first].cpu())
