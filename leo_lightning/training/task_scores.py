"""One score for each task, the mean and its confidence interval, and calibration."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from leo_lightning.common.intervals import half_width
from leo_lightning.training.scoring import BINS


class TaskScores:  # not a dataclass: torchmetrics would squeeze the tensors of a single task
    """A score for each task, in the order of the task numbers.

    Args:
        task: numbers of the tasks.
        values: accuracy or mean squared error on the queries of each task.

    Attributes:
        extra: further numbers about all tasks together, by name.
        auroc: how well queries of unknown classes are told from others, by name of the score; {} in tasks
            without unknown classes.
    """

    def __init__(self, task: Int64[Tensor, " tasks"], values: Float[Tensor, " tasks"]) -> None:
        self.task, self.values = task, values
        self.extra: dict[str, float] = {}
        self.auroc: dict[str, TaskScores] = {}

    @property
    def mean(self) -> float:
        """Mean over tasks."""
        return self.values.mean().item()

    @property
    def ci95(self) -> float:
        """Half width of the mean's 95% confidence interval."""
        return half_width(self.values)


def calibration_error(reliability: Float64[Tensor, "bins 3"]) -> float:
    """Expected calibration error, from the reliability of `scoring.Scores` summed over tasks.

    Mean over queries of |fraction of hits - mean confidence| of their bin. Guo, Pleiss, Sun, Weinberger: On
    Calibration of Modern Neural Networks. ICML 2017, Eq. 3.
    """
    count, confidence, hits = reliability.T
    return ((hits - confidence).abs().sum() / count.sum()).item()


class TaskTable(Metric):
    """Collects named scores for each task, and the reliability of the score named `final`.

    A task arrives once: streams deal them to processes by their numbers, without padding.
    """

    full_state_update = False
    task: list[Tensor]
    values: list[Tensor]
    reliability: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        for state in ("task", "values"):
            self.add_state(state, default=[], dist_reduce_fx="cat")
        self.add_state("reliability", default=torch.zeros(BINS, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        names: Iterable[str],
        values: Float64[Tensor, "B S"],
        task: Int64[Tensor, " B"],
        reliability: Float64[Tensor, "bins 3"] | None = None,
    ) -> None:
        """Add S scores, with their names, for each task of a meta-batch, and the reliability of `final`."""
        self.names = tuple(names)
        self.task.append(task.to(values.device))
        self.values.append(values)
        if reliability is not None:
            self.reliability = self.reliability.to(reliability.device) + reliability

    def compute(self) -> dict[str, TaskScores]:
        """Scores of all tasks of all processes so far, by name, in the order of the task numbers.

        With reliability, `final` has its `calibration_error`.
        """
        task, values = (dim_zero_cat(state).cpu() for state in (self.task, self.values))
        order = task.argsort()
        task, values = task[order], values[order]
        scores = {name: TaskScores(task, column) for name, column in zip(self.names, values.T, strict=True)}
        if self.reliability.any():
            scores["final"].extra["calibration_error"] = calibration_error(self.reliability.cpu())
        return scores
