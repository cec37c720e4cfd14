"""Tasks whose classes have unequal numbers of queries, divided by a Dirichlet distribution.

Veilleux, Boudiaf, Piantanida, Ben Ayed: Realistic evaluation of transductive few-shot learning. NeurIPS 2021,
arXiv:2204.11181. As in `data/sampler.py`, everything is a pure function of (seed, split, task number).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from leo_lightning.data.episode import EpisodeRows
from leo_lightning.data.hashes import SPLIT_KEYS, fold_tasks, mix, uniform
from leo_lightning.data.sampler import sample_rows

DIVISION = 1
"""Tells the uniform numbers of the division from those of classes and images."""


def unbalanced_rows(
    tasks: Sequence[int],
    seed: int,
    split: str,
    offsets: Int64[ndarray, " C"],
    counts: Int64[ndarray, " C"],
    way: int,
    shot: int,
    queries: int,
    concentration: int,
) -> EpisodeRows:
    """Choose rows as `sample_rows` does, with N·Q queries in all, but not equally many of each class.

    Classes and support are the same, and the queries of a class begin with those of the balanced task, or are
    the first of them. A class may have none.

    Args:
        tasks: task numbers, B of them.
        seed: seed of the task sequence.
        split: train, val or test.
        offsets: row of each class's first image.
        counts: images of each class, at least shot + queries.
        way: N.
        shot: K.
        queries: Q, the mean number of queries of a class.
        concentration: a of Dirichlet(a, …, a); large is nearly balanced.
    """
    classes = sample_rows(tasks, seed, split, offsets, counts, way, shot, 1).classes
    assert classes is not None
    limits = counts[classes.numpy()] - shot
    numbers = query_numbers(tasks, seed, split, limits, way * queries, concentration)
    # a class that is too small for so many draws nonsense in the end, which is never used
    rows = sample_rows(tasks, seed, split, offsets, counts, way, shot, int(numbers.max()))
    valid = torch.arange(rows.query.shape[2]) < torch.from_numpy(numbers)[..., None]
    first = torch.from_numpy(offsets)[classes][..., None]
    return rows._replace(query=rows.query.where(valid, first), valid=valid)


def query_numbers(
    tasks: Sequence[int],
    seed: int,
    split: str,
    limits: Int64[ndarray, "B N"],
    total: int,
    concentration: int,
) -> Int64[ndarray, "B N"]:
    """Divide `total` queries of each task among its classes, none of which gives more than its limit.

    Dirichlet variables are gamma variables divided by their sum. For whole a, a gamma variable is minus the
    logarithm of a product of a uniform ones.
    """
    key = fold_tasks(tasks, seed, SPLIT_KEYS[split], DIVISION)
    slots = mix(key[:, None] + mix(np.arange(limits.shape[1], dtype=np.uint64)))
    gamma = -np.log1p(-uniform(slots, concentration)).sum(-1)
    return _divided(gamma / gamma.sum(1, keepdims=True), total, limits)


def _divided(
    shares: Float64[ndarray, "B N"], total: int, limits: Int64[ndarray, "B N"]
) -> Int64[ndarray, "B N"]:
    """Divide a number by shares into whole numbers, none above its limit.

    What a limit cuts off is divided among the other classes by their shares. The largest remainders are
    rounded up. The limits of a task add up to `total` or more.
    """
    numbers = np.zeros(shares.shape, np.int64)
    while (missing := total - numbers.sum(1)).any():
        room = limits - numbers
        weights = np.where(room > 0, shares + 1e-12, 0.0)
        exact = missing[:, None] * weights / weights.sum(1, keepdims=True)
        more = np.floor(exact).astype(np.int64)
        rank = np.argsort(np.argsort(-(exact - more), axis=1, kind="stable"), axis=1)
        more += rank < (missing - more.sum(1))[:, None]
        numbers += np.minimum(more, room)
    return numbers
