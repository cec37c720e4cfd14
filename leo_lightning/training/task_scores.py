"""One score for each task, the mean and its confidence interval, and calibration."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, distributed


@dataclass
class TaskScores:
    """A score for each task, in the order of the task numbers."""

    task: Int64[Tensor, " tasks"]
    """Numbers of the tasks."""
    values: Float[Tensor, " tasks"]
    """Accuracy or mean squared error on the queries of each task."""
    extra: dict[str, float] = field(default_factory=dict)
    """Further numbers about all tasks together, by name."""

    @property
    def mean(self) -> float:
        """Mean over tasks."""
        return self.values.mean().item()

    @property
    def ci95(self) -> float:
        """Half width of the mean's 95% confidence interval."""
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
    """Expected calibration error, from the reliability of `scoring.Scores` summed over tasks.

    Mean over queries of |fraction of hits - mean confidence| of their bin. Guo, Pleiss, Sun, Weinberger: On
    Calibration of Modern Neural Networks. ICML 2017, Eq. 3.
    """
    count, confidence, hits = reliability.T
    return ((hits - confidence).abs().sum() / count.sum()).item()


class TaskTable:
    """Collects named scores for each task, and the reliability of the score named `final`."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._batches: list[tuple[Tensor, ...]] = []

    def update(
        self,
        names: Iterable[str],
        values: Float64[Tensor, "B S"],
        task: Int64[Tensor, " B"],
        reliability: Float64[Tensor, "B bins 3"] | None = None,
    ) -> None:
        """Add S scores, with their names, for each task of a meta-batch."""
        self.names = tuple(names)
        self._batches.append((task, values) if reliability is None else (task, values, reliability))

    def compute(self) -> dict[str, TaskScores]:
        """Scores of all tasks of all processes so far, by name.

        A task that arrived twice (a distributed sampler may pad) counts once. With reliability, `final` has
        its `calibration_error`.
        """
        parts = [[torch.cat(column).cpu() for column in zip(*self._batches, strict=True)]]
        if distributed.is_available() and distributed.is_initialized():
            parts *= distributed.get_world_size()
            distributed.all_gather_object(parts, parts[0])
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        unique, place = torch.unique(columns[0], return_inverse=True)
        # the row where each task comes first, in the order of the task numbers
        first = torch.empty_like(unique).scatter_(0, place.flip(0), torch.arange(len(place)).flip(0))
        task, values, *reliability = (column[first] for column in columns)
        scores = {name: TaskScores(task, column) for name, column in zip(self.names, values.T, strict=True)}
        if reliability:
            scores["final"].extra["calibration_error"] = calibration_error(reliability[0].sum(0))
        return scores
