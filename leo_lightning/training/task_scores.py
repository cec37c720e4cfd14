"""Numbers of all tasks, with the interval of their mean, and calibration."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class TaskScores:
    """A number of every task, in the order of the task numbers.

    No tuple, or torchmetrics would take it apart and make scalars of what has one task.

    Args:
        task: numbers of the tasks.
        values: of each task: the share of its queries that are answered right, or their mean squared error.
        extra: what else is known of all tasks together, by name.
    """

    def __init__(
        self,
        task: Int64[Tensor, " tasks"],
        values: Float[Tensor, " tasks"],
        extra: dict[str, float] | None = None,
    ) -> None:
        self.task = task
        self.values = values
        self.extra = extra or {}

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.task)

    @property
    def mean(self) -> float:
        """Mean over tasks."""
        return self.values.mean().item()

    @property
    def ci95(self) -> float:
        """See `half_width`."""
        return half_width(self.values)


def half_width(values: Float[Tensor, " tasks"]) -> float:
    """Half width of the 95% confidence interval of a mean over tasks: 1.96 standard errors; NaN for one."""
    if len(values) == 1:
        return math.nan
    return 1.96 * values.std().item() / math.sqrt(len(values))


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95% confidence interval of a proportion of independent queries, which stays within 0 and 1.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference. Journal of the American
    Statistical Association 22, 1927.

    Args:
        hits: queries that are answered right.
        count: of so many.
    """
    z2, share = 1.96**2, hits / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return centre - half, centre + half


def calibration_error(reliability: Float64[Tensor, "bins 3"]) -> float:
    """Expected calibration error: mean over queries of |share of hits - mean confidence| of their bin.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks. ICML 2017, Eq. 3.

    Args:
        reliability: queries, confidences and hits by bin, summed over tasks; see `scoring.Scores`.
    """
    count, confidence, hits = reliability.T
    return ((hits - confidence).abs().sum() / count.sum()).item()


class TaskTable(Metric):
    """Collects named numbers of each task.

    A task that arrives twice (a distributed sampler may pad) counts once.

    Args:
        names: of the columns.
    """

    full_state_update = False
    task: list[Tensor]
    values: list[Tensor]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("task", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, values: Float64[Tensor, "B S"], task: Int64[Tensor, " B"]) -> None:
        """Add the tasks of a meta-batch."""
        self.task.append(task.to(values.device))
        self.values.append(values)

    def compute(self) -> dict[str, TaskScores]:
        """Scores of all tasks so far, by name."""
        first = self._once()
        task, values = dim_zero_cat(self.task)[first].cpu(), dim_zero_cat(self.values)[first].cpu()
        return {name: TaskScores(task, column) for name, column in zip(self.names, values.T, strict=True)}

    def _once(self) -> Int64[Tensor, " tasks"]:
        """Where each task is for the first time, in the order of the task numbers."""
        task = dim_zero_cat(self.task)
        unique, where = torch.unique(task, return_inverse=True)
        return torch.empty_like(unique).scatter_(0, where.flip(0), torch.arange(len(task)).flip(0).to(task))


class TaskAccuracy(TaskTable):
    """Collects the accuracy on each task of several classifiers, and the reliability of `final`.

    Args:
        names: of the classifiers.
    """

    higher_is_better = True
    reliability: list[Tensor]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.add_state("reliability", default=[], dist_reduce_fx="cat")

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        values: Float64[Tensor, "B S"],
        task: Int64[Tensor, " B"],
        reliability: Float64[Tensor, "B bins 3"],
    ) -> None:
        """Add the tasks of a meta-batch."""
        super().update(values, task)
        self.reliability.append(reliability)

    def compute(self) -> dict[str, TaskScores]:
        """Accuracies of all tasks so far, by name; `final` has its `calibration_error`."""
        found = super().compute()
        total = dim_zero_cat(self.reliability)[self._once()].sum(0)
        found["final"].extra["calibration_error"] = calibration_error(total)
        return found
