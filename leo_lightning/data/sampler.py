"""Which images make up a task: a pure function of (seed, split, task number).

Nothing here keeps a state, so a task is the same for any batch size, number of workers, processes or
restarts. Tasks are also nested: the first classes of a 10-way task are those of the 5-way task with the same
number, the support of 1 shot is the first image of the support of 5, and the number of queries changes no
support. Comparisons over way, shot and protocol are therefore paired.

Random numbers are hashes of counters (SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from leo_lightning.data.episode import EpisodeRows

SPLIT_KEYS = {"train": 1, "val": 2, "test": 3}
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 0xFFFFFFFFFFFFFFFF


def _mix(x: UInt64[ndarray, "*s"]) -> UInt64[ndarray, "*s"]:
    """SplitMix64's output function: a bijection on 64-bit words whose output bits look independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(*words: int) -> int:
    """One well-mixed 64-bit word out of several integers; order matters."""
    state = 0
    for word in words:  # `_mix` on Python's integers: an array of one number takes ten times as long
        state = (state + word * _GOLDEN + _GOLDEN) & _WORD
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _WORD
        state ^= state >> 31
    return state


def fold_tasks(tasks: Sequence[int] | ndarray, *words: int) -> UInt64[ndarray, " B"]:
    """One well-mixed word for each task number, out of it and what its tasks have in common."""
    return _mix(np.uint64(fold(*words)) + np.asarray(tasks, np.uint64) * np.uint64(_GOLDEN))


def _uniform(key: UInt64[ndarray, "*s"], count: int) -> Float64[ndarray, "*s count"]:
    """`count` numbers in [0, 1) per key; a longer run begins with the shorter one."""
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (_mix(key[..., None] + counters) >> np.uint64(11)) * 2.0**-53


def _distinct(
    uniform: Float64[ndarray, "rows m"], sizes: Int64[ndarray, " rows"]
) -> Int64[ndarray, "rows m"]:
    """Draw m numbers below `sizes` without replacement: draw j is uniform over the size - j numbers left.

    A draw r stands for the r-th number not yet drawn. With the earlier draws sorted, s_0 < s_1 < …, it is
    r + #{i : s_i - i <= r}.
    """
    ranks = (uniform.T * (sizes - np.arange(uniform.shape[1])[:, None])).astype(np.int64)
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
) -> EpisodeRows:
    """Choose classes and images of the given tasks, classes and images without replacement.

    Args:
        tasks: task numbers, B of them.
        seed: seed of the task sequence.
        split: train, val or test: each has a sequence of its own.
        offsets: row of each class's first image; a class's images are contiguous.
        counts: images of each class, at least shot + queries (shot + 1 for `queries=None`).
        way: N.
        shot: K.
        queries: Q, or None for all images of the class that are not in the support.
    """
    batch = np.asarray(tasks, np.uint64)
    key = fold_tasks(batch, seed, SPLIT_KEYS[split])
    slots = _mix(key[:, None] + _mix(np.arange(way + 1, dtype=np.uint64)))  # 0: the classes; n + 1: class n
    classes = _distinct(_uniform(slots[:, 0], way), np.full(len(batch), len(counts))).reshape(-1)
    drawn_queries = 0 if queries is None else queries
    images = _distinct(_uniform(slots[:, 1:].reshape(-1), shot + drawn_queries), counts[classes])
    first = offsets[classes][:, None]
    support = first + images[:, :shot]
    if queries is None:
        query, valid = _remaining(images, counts[classes])
    else:
        query, valid = images[:, shot:], None
    query = first + query

    def shaped(rows: ndarray) -> torch.Tensor:
        return torch.from_numpy(rows.reshape(len(batch), way, -1))

    return EpisodeRows(
        task=torch.from_numpy(batch.astype(np.int64)),
        support=shaped(support),
        query=shaped(query),
        valid=None if valid is None else shaped(valid),
        classes=shaped(classes).squeeze(2),
    )


def _remaining(
    support: Int64[ndarray, "rows K"], sizes: Int64[ndarray, " rows"]
) -> tuple[Int64[ndarray, "rows Q"], ndarray | None]:
    """All image numbers of each class that are not in its support, in order, padded with 0."""
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
