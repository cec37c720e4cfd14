"""The choice of a task's images: a pure function of (seed, split, task number).

Nothing here keeps a state, so a task is the same for any batch size and any number of workers, processes and
restarts. Tasks are also nested: a 10-way task begins with the classes of the 5-way task of the same number, a
5-shot support begins with the 1-shot support, and the number of queries changes no support. Unknown classes
of a 5-way task are the next classes of the 10-way task. Comparisons over way, shot and protocol are therefore
paired.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from leo_lightning.data.episode import EpisodeRows
from leo_lightning.data.hashes import SPLIT_KEYS, fold_tasks, mix, uniform


def _distinct(
    numbers: Float64[ndarray, "rows m"], sizes: Int64[ndarray, " rows"]
) -> Int64[ndarray, "rows m"]:
    """Draw m numbers below `sizes` without replacement: draw j is uniform over the size - j numbers left.

    A draw r stands for the r-th number not yet drawn. With the earlier draws sorted, s_0 < s_1 < …, it is
    r + #{i : s_i - i <= r}.
    """
    ranks = (numbers.T * (sizes - np.arange(numbers.shape[1])[:, None])).astype(np.int64)
    drawn, ordered = np.empty_like(ranks), np.empty_like(ranks)
    for j, rank in enumerate(ranks):
        earlier = ordered[:j] - np.arange(j)[:, None] <= rank
        drawn[j] = ordered[j] = rank + earlier.sum(axis=0)
        ordered[: j + 1].sort(axis=0)
    return drawn.T


def sample_rows(
    tasks: Sequence[int],
    seed: int,
    split: str,
    offsets: Int64[ndarray, " C"],
    counts: Int64[ndarray, " C"],
    way: int,
    shot: int,
    queries: int | None,
    unknown: int = 0,
) -> EpisodeRows:
    """Choose classes and images of the given tasks, classes and images without replacement.

    Args:
        tasks: task numbers, B of them.
        seed: seed of the task sequence.
        split: train, val or test, each with its own sequence.
        offsets: row of each class's first image; a class's images are contiguous.
        counts: images of each class, at least shot + queries (shot + 1 for `queries=None`).
        way: N.
        shot: K.
        queries: Q, or None for all images of the class that are not in the support.
        unknown: M, further classes with queries only.
    """
    total = way + unknown
    batch = np.asarray(tasks, np.uint64)
    key = fold_tasks(batch, seed, SPLIT_KEYS[split])
    slots = mix(key[:, None] + mix(np.arange(total + 1, dtype=np.uint64)))  # 0: the classes; n + 1: class n
    classes = _distinct(uniform(slots[:, 0], total), np.full(len(batch), len(counts))).reshape(-1)
    drawn_queries = 0 if queries is None else queries
    images = _distinct(uniform(slots[:, 1:].reshape(-1), shot + drawn_queries), counts[classes])
    first = offsets[classes][:, None]
    support = first + images[:, :shot]
    if queries is None:
        query, valid = _remaining(images, counts[classes])
    else:
        query, valid = images[:, shot:], None
    query = first + query

    def shaped(rows: ndarray) -> torch.Tensor:
        return torch.from_numpy(rows.reshape(len(batch), total, -1))

    asked = shaped(query)
    return EpisodeRows(
        task=torch.from_numpy(batch.astype(np.int64)),
        support=shaped(support)[:, :way],
        query=asked[:, :way],
        valid=None if valid is None else shaped(valid)[:, :way],
        classes=shaped(classes).squeeze(2)[:, :way],
        unknown=asked[:, way:] if unknown else None,
    )


def _remaining(
    support: Int64[ndarray, "rows K"], sizes: Int64[ndarray, " rows"]
) -> tuple[Int64[ndarray, "rows Q"], ndarray | None]:
    """Return all image numbers of each class that are not in its support, in order, padded with 0."""
    shot = support.shape[1]
    width = int(sizes.max()) - shot
    rank = np.tile(np.arange(width), (len(sizes), 1))
    query = rank + 0
    for s in np.sort(support, axis=1).T:  # skip the support images, smallest first
        query += query >= s[:, None]
    valid = rank < (sizes - shot)[:, None]
    if valid.all():
        return query, None
    return np.where(valid, query, 0), valid
