"""Tasks of the paper's regression: half of them sines, half of them lines (Section 4.1).

A sine is a·sin(x - b) with a ~ U[0.1, 5] and b ~ U[0, π], a line s·x + c with s, c ~ U[-3, 3]; x ~ U[-5, 5],
and the values have normal noise. A task is a pure function of (seed, split, task number), and tasks are
nested: a larger support or query set begins with the smaller one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt64
from numpy import ndarray
from torch import Tensor

from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.data.hashes import SPLIT_KEYS, fold_tasks, mix, uniform

FAMILIES = ("sine", "line")
RANGE = 5.0
"""Inputs lie between -5 and 5."""
AMPLITUDE, PHASE, SLOPE = (0.1, 5.0), (0.0, float(np.pi)), (-3.0, 3.0)
"""Ranges of a sine's and a line's parameters; an intercept has the range of a slope."""


class Functions(NamedTuple):
    """The true functions of B tasks."""

    family: Int64[Tensor, " B"]
    """Number in `FAMILIES`."""
    first: Float[Tensor, " B"]
    """Amplitude, or slope."""
    second: Float[Tensor, " B"]
    """Phase, or intercept."""

    def __call__(self, x: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Return the values at x, without noise."""
        first, second = self.first[:, None], self.second[:, None]
        sine, line = first * (x - second).sin(), first * x + second
        return torch.where(self.family[:, None] == 0, sine, line)


def sample_functions(tasks: Sequence[int] | ndarray, seed: int, split: str) -> Functions:
    """Return the functions of the given tasks."""
    family, first, second = uniform(_slot(tasks, seed, split, 0), 3).T
    line = family >= 0.5
    firsts = np.where(line, _between(*SLOPE, first), _between(*AMPLITUDE, first))
    seconds = np.where(line, _between(*SLOPE, second), _between(*PHASE, second))
    return Functions(*(torch.from_numpy(part) for part in (line.astype(np.int64), firsts, seconds)))


def sample_points(
    tasks: Sequence[int], seed: int, split: str, shot: int, queries: int, noise: float
) -> Episode:
    """Return support and queries of the given tasks: x, and the value there with noise.

    A task's only class is its function, so N = 1 and E = 2.

    Args:
        tasks: task numbers, B of them.
        seed: seed of the task sequence.
        split: train, val or test, each with its own sequence.
        shot: K.
        queries: Q.
        noise: standard deviation of the values.
    """
    functions = sample_functions(tasks, seed, split)

    def points(slot: int, count: int) -> Float[Tensor, "B 1 M 2"]:
        numbers = uniform(_slot(tasks, seed, split, slot), 3 * count).reshape(len(tasks), count, 3)
        x = torch.from_numpy(_between(-RANGE, RANGE, numbers[..., 0]))
        radius, angle = np.sqrt(-2 * np.log1p(-numbers[..., 1])), 2 * np.pi * numbers[..., 2]
        y = functions(x) + noise * torch.from_numpy(radius * np.cos(angle))  # Box and Muller
        return torch.stack([x, y], dim=-1).float()[:, None]

    none = torch.zeros(len(tasks), 1, 0, dtype=torch.int64)
    number = torch.from_numpy(np.asarray(tasks, np.int64))
    rows = EpisodeRows(task=number, support=none, query=none, classes=functions.family[:, None])
    return Episode(points(1, shot), points(2, queries), rows, noise=noise, known_families=True)


def _slot(tasks: Sequence[int] | ndarray, seed: int, split: str, slot: int) -> UInt64[ndarray, " B"]:
    """Return the key of a part of each task: 0, its function; 1, its support; 2, its queries."""
    return mix(fold_tasks(tasks, seed, SPLIT_KEYS[split]) + mix(np.array([slot], np.uint64)))


def _between(low: float, high: float, number: Float64[ndarray, "*s"]) -> Float64[ndarray, "*s"]:
    return low + (high - low) * number
